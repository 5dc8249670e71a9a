"""How is a language named in messages?"""

from typing import Annotated

from pydantic import Field

Locale = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]
"""A language tag (RFC 5646), in any case: ``de``, ``de-AT``, ``zh-Hant-TW``."""


NonEmpty = Annotated[str, Field(min_length=1)]
"""Ids that clients send are opaque: any non-empty one is looked up."""
