"""Message contracts between the services, registered by wire name.

This package imports all its modules, so that ``MESSAGES`` is complete for every reader.
"""

import importlib
import pkgutil

from shared.messages.message import (
    ANONYMOUS,
    MESSAGES,
    SERVICE,
    SERVICE_COMMANDS,
    Caller,
    Command,
    Event,
    Message,
    OperatorList,
    Part,
    Query,
    Reply,
    is_query,
)
from shared.messages.types import Sealed, iso_milliseconds

__all__ = [
    "ANONYMOUS",
    "MESSAGES",
    "SERVICE",
    "SERVICE_COMMANDS",
    "Caller",
    "Command",
    "Event",
    "Message",
    "OperatorList",
    "Part",
    "Query",
    "Reply",
    "Sealed",
    "is_query",
    "iso_milliseconds",
]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
