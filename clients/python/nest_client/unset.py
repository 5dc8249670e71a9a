"""The value of arguments that are left out of a request, which differ from null."""

from enum import Enum
from typing import Final


class Unset(Enum):
    """Type of ``UNSET``."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""A field that is left out of the request; None sends null."""
