"""Environment variables of news."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from shared.settings import CommaSeparated, ServiceSettings, split_commas

DANGEROUS_SCHEMES: Final = frozenset({"about", "blob", "data", "file", "javascript", "vbscript", "view-source"})
"""Schemes that execute or read something on the user's device instead of opening a page."""
DEFAULT_SCHEMES: Final = ("https", "http")
_HOST: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def _schemes(value: tuple[str, ...]) -> tuple[str, ...]:
    for scheme in value:
        # RFC 3986 section 3.1, in lower case, which URLs are normalised to.
        if not scheme.replace("+", "").replace("-", "").replace(".", "").isalnum() or scheme != scheme.lower():
            raise ValueError(f"{scheme!r} is not a URL scheme in lower case")
        if scheme in DANGEROUS_SCHEMES:
            raise ValueError(f"{scheme!r} is not allowed: it is dangerous in a button")
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not a host in lower case, such as example.com")
    return value


class NewsSettings(ServiceSettings):
    """Environment variables of news."""

    PROCESS = "news"

    news_action_schemes: Annotated[CommaSeparated, BeforeValidator(split_commas), AfterValidator(_schemes)] = Field(
        default=DEFAULT_SCHEMES, min_length=1
    )
    """Comma-separated URL schemes that a banner's button may open: those of the web, and those of your own apps."""
    news_action_hosts: Annotated[CommaSeparated, BeforeValidator(split_commas), AfterValidator(_hosts)] = ()
    """Comma-separated hosts that a button may open, each with its subdomains; empty for any host."""
