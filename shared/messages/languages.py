"""Languages: reading of language tags, and lookup of the best available language.

A language is a preference. A tag that cannot be read counts as not given, and is never a reason to refuse a request.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

DEFAULT_LOCALE: Final = "en"
"""Every text exists in this language."""
MAX_TAG_CHARACTERS: Final = 200
"""Length of the longest text that is read as a language tag; RFC 5646 section 4.4 sets no limit."""
TAG_PATTERN: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"
"""Normal form of a language tag: language, script, region and variants of RFC 5646."""
_NORMAL: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
_SUBTAG: Final = re.compile(r"[A-Za-z0-9]{1,8}")
_MAX_SUBTAGS: Final = 4
_GRANDFATHERED: Final = {
    "i-ami": "ami",
    "i-bnn": "bnn",
    "i-hak": "hak",
    "i-klingon": "tlh",
    "i-lux": "lb",
    "i-navajo": "nv",
    "i-pwn": "pwn",
    "i-tao": "tao",
    "i-tay": "tay",
    "i-tsu": "tsu",
}
"""Preferred values of the irregular tags of RFC 5646 section 2.2.8 that begin with ``i``, from IANA's registry. The
other grandfathered tags, such as ``en-GB-oed`` and ``zh-min-nan``, have the normal form."""


def language_tag(text: str) -> str | None:
    """Return a language tag in normal form (``TAG_PATTERN``); None if the text names no language.

    These forms are read, in any case and with white space around them:

    - BCP 47 (RFC 5646): ``zh-Hant-TW``. Extensions and private use (``de-AT-u-mu-celsius``, ``en-x-team``) and a fourth
      and later subtags are dropped: no text exists for them, so lookup (RFC 4647 section 3.4) would drop them too.
    - names of locales in POSIX (IEEE Std 1003.1 section 8.2): ``de_DE.UTF-8@euro``. ``C`` and ``POSIX`` name no
      language.
    - Java's ``Locale.toString()``: ``zh_TW_#Hant``, ``de__POSIX``.

    ``und``, the undetermined language, and texts of more than ``MAX_TAG_CHARACTERS`` name no language.
    """
    if len(text) > MAX_TAG_CHARACTERS:
        return None
    name = re.split(r"[.@]", text.strip(), maxsplit=1)[0].replace("_", "-")
    name = _GRANDFATHERED.get(name.lower(), name)
    subtags: list[str] = []
    for part in name.split("-"):
        script = part.startswith("#")
        subtag = part[1:] if script else part
        if not subtag and subtags:
            # Java leaves the places of a missing country and script empty.
            continue
        if not _SUBTAG.fullmatch(subtag):
            return None
        if len(subtag) == 1:
            # The singleton of an extension, or ``x`` before private use (RFC 5646 section 2.2.6, 2.2.7).
            break
        # Java writes the script last; RFC 5646 section 2.1 has it after the language.
        subtags.insert(1 if script else len(subtags), subtag)
    tag = "-".join(subtags[:_MAX_SUBTAGS])
    return tag if _NORMAL.fullmatch(tag) and subtags[0].lower() != "und" else None


def best_locale(preferred: Sequence[str | None], available: Collection[str]) -> str:
    """Return the best available locale by lookup (RFC 4647 section 3.4), English if none matches.

    ``preferred`` has language tags (RFC 5646) in any case, best first; None and empty strings are skipped. The
    ``available`` ones are in lower case. Raises LookupError if English is not among them either.
    """
    for tag in (*filter(None, preferred), DEFAULT_LOCALE):
        for candidate in _truncations(tag.replace("_", "-").lower()):
            if candidate in available:
                return candidate
    raise LookupError(DEFAULT_LOCALE)


def _truncations(tag: str) -> Iterator[str]:
    """Yield ``zh-hant-x-a``, ``zh-hant``, ``zh``: a single-letter subtag is removed together with the one after it."""
    parts = tag.split("-")
    while parts:
        yield "-".join(parts)
        parts.pop()
        while parts and len(parts[-1]) == 1:
            parts.pop()
