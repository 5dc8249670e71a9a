"""Profiles of the `nest` command: URL and internal key of several Nests, each under a name, in one file of its owner.

The folder is ``$XDG_CONFIG_HOME/nest``, or ``~/.config/nest`` (XDG Base Directory Specification 0.8).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from services.embedded.folder import replace_file
from services.operator.client import CommandError
from shared.networks import LOOPBACK_HOSTS

DEFAULT: Final = "default"
"""Profile that is used if nothing else names a Nest."""
MAX_FILE_BYTES: Final = 1_000_000
MAX_KEY_CHARACTERS: Final = 4_096
MAX_URL_CHARACTERS: Final = 2_000
_FILE: Final = "profiles.json"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """Access to one Nest.

    Attributes:
        url: base URL of its HTTP API, without a slash at the end.
        key: one of its internal keys.
    """

    url: str
    key: str = field(repr=False)


def folder() -> Path:
    """Return the folder of the file with the profiles. A relative ``XDG_CONFIG_HOME`` is ignored, as XDG requires."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # Unlike Path.home, expanduser fails for no user without a home.
    return (base if base.is_absolute() else Path(os.path.expanduser("~"), ".config")) / "nest"  # noqa: PTH111


def read_profiles() -> dict[str, Profile]:
    """Return all profiles by name.

    Raises:
        CommandError: others can access the file or its folder, or the file is unreadable, over 1 MB or malformed.
    """
    file = folder() / _FILE
    if not os.access(file.parent, os.X_OK):
        # It does not exist, or the home is that of another user, as in some containers.
        return {}
    try:
        _require_private(folder(), "700")
        with file.open("rb") as opened:
            _require_private(file, "600")
            content = opened.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}") from None
    try:
        # A longer document is incomplete here, and malformed.
        stored = json.loads(content)
        return {checked_name(name): Profile(str(each["url"]), str(each["key"])) for name, each in stored.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        # Without the cause, which has parts of the file.
        raise CommandError(f"{file} is not a file of profiles: remove it, and repeat nest login") from None


def find_profile(name: str) -> Profile | None:
    """Return a profile; None if there is none with this name."""
    return read_profiles().get(name)


def get_profile(name: str) -> Profile:
    """Return a profile.

    Raises:
        CommandError: there is none with this name; see also `read_profiles`.
    """
    found = read_profiles()
    if name not in found:
        raise CommandError(f"no profile {name!r}: nest profiles list shows them, nest login adds one")
    return found[name]


def save_profile(name: str, profile: Profile) -> None:
    """Add or replace a profile; see `read_profiles` for errors."""
    with _locked():
        _write({**read_profiles(), checked_name(name): profile})


def remove_profile(name: str) -> None:
    """Remove a profile; see `get_profile` for errors."""
    with _locked():
        get_profile(name)
        _write({other: profile for other, profile in read_profiles().items() if other != name})


def checked_name(name: str) -> str:
    """Return a name of 1 to 64 letters, digits, dots, hyphens and underscores; raise ValueError for others."""
    if not _NAME.fullmatch(name):
        raise ValueError("write a name of at most 64 letters, digits, dots, hyphens and underscores")
    return name


def checked_url(url: str) -> str:
    """Return the URL of a gateway without a slash at its end: https, or http to this machine; ValueError for others.

    A key that is sent over http to another machine can be read on the way.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or len(url) > MAX_URL_CHARACTERS:
        raise ValueError("write the URL of the gateway, such as https://api.example.com")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("write the URL without user, password, query and fragment")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValueError("write an https URL: http is for this machine only, since the key could be read on the way")
    return url.rstrip("/")


def checked_key(text: str) -> str:
    """Return a key without white space around it: 1 to 4,096 printable ASCII characters; ValueError for others."""
    key = text.strip()
    if not key or len(key) > MAX_KEY_CHARACTERS or not all("!" <= each <= "~" for each in key):
        raise ValueError(f"the key must have 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, without spaces")
    return key


def _require_private(path: Path, mode: str) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CommandError(f"others can access {path}, which has internal keys: chmod {mode} {path}")


@contextmanager
def _locked() -> Iterator[None]:
    """Create the folder and lock it, so that of two logins at once neither loses the other's profile."""
    place = folder()
    if not place.is_absolute():
        raise CommandError("this user has no home folder: set XDG_CONFIG_HOME to a folder")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CommandError(f"{place} can't be created: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(profiles: dict[str, Profile]) -> None:
    file = folder() / _FILE
    stored = {name: {"url": profile.url, "key": profile.key} for name, profile in sorted(profiles.items())}
    try:
        replace_file(file, json.dumps(stored, indent=2) + "\n")
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}") from None
