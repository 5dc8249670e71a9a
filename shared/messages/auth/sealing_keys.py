"""Sealing keys: how many messages each one has sealed."""

from typing import Annotated

from pydantic import Field

from shared.messages.message import SERVICE_COMMANDS, Command


class CountSealedMessages(Command, wire="auth.count-sealed-messages", topic=SERVICE_COMMANDS):
    """Count messages that a process seals with a key, reported before it seals them. The ordering key is ``key_id``."""

    key_id: Annotated[str, Field(min_length=1, max_length=128)]
    """ID of the sealing key, as in ``NEST_SEALING_KEYS``."""
    count: Annotated[int, Field(ge=1, le=2**32)]
    """Number of messages that the process may have sealed by its next report."""
