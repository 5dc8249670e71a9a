"""Where may a news item lead? To what the settings allow, and never where a URL shows one place and opens another."""

from __future__ import annotations

import string
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shared.messages.news import ActionUrlNotAllowed, BannerContent, Content

_URL_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=%")
"""What RFC 3986 lets a URL consist of; anything else is read differently by different apps."""
_WEB = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Links:
    """Where an item may lead.

    Attributes:
        schemes: URL schemes, in lower case.
        hosts: hosts of web pages, in lower case, each with those under it; none for any host.
    """

    schemes: Collection[str]
    hosts: Collection[str] = ()

    def check(self, content: Content) -> None:
        """Let content pass all of whose URLs an app may open.

        Raises:
            ActionUrlNotAllowed: one of them it may not.
        """
        if isinstance(content, BannerContent):
            action = content.payload.action
            urls = [] if action is None else [action.url]
        else:
            urls = list(_urls(content.payload))
        for url in urls:
            if not self._allow(url):
                raise ActionUrlNotAllowed(schemes=sorted(self.schemes), hosts=sorted(self.hosts))

    def _allow(self, url: Any) -> bool:
        """Whether it has an allowed scheme and host, and only characters that a URL has.

        ``https://bank.example@evil.example`` shows one host and opens another: a user name is never allowed.
        """
        if not isinstance(url, str) or not _URL_CHARACTERS.issuperset(url):
            return False
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in self.schemes or "@" in parts.netloc:
            return False
        if parts.scheme not in _WEB:
            return True
        return bool(host) and (not self.hosts or any(_under(host or "", allowed) for allowed in self.hosts))


def _under(host: str, allowed: str) -> bool:
    return host == allowed or host.endswith("." + allowed)


def _urls(found: Any) -> Iterator[Any]:
    """Every value under a key ``url``, however deep."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "url":
                yield value
            yield from _urls(value)
    elif isinstance(found, list):
        for value in found:
            yield from _urls(value)
