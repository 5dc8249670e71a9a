"""HTTP client of the operator commands, and the errors that they report in one line."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from services.embedded.credentials import operator_credentials

if TYPE_CHECKING:
    from services.operator.profiles import Profile

VERSION: Final = "2026-12-01"
URL: Final = "NEST_URL"
KEY: Final = "NEST_INTERNAL_KEY"
TIMEOUT_SECONDS: Final = 30.0
EXPLANATIONS: Final[Mapping[str, str]] = {
    "not_found": "not found",
    "client_not_found": "no client has this ID",
    "dead_letter_not_found": "no dead letter has this ID (any more)",
    "validation_failed": "the request is invalid",
    "partition_not_paused": "this partition is not paused (any more)",
    "news_item_changed": "the item was changed since that version: read it again",
    "client_changed": "the client was changed since that version: read it again",
    "unavailable": "Nest is unavailable: try again, and run nest doctor",
    "query_timeout": "the list takes too long: set a filter or a period, such as --since",
    "reply_timeout": "no reply in time, so the command may have taken effect: check, and run nest doctor",
}
"""Explanations of the common error codes; other codes are printed alone."""


class CommandError(Exception):
    """A command failed; the text is one line for the operator.

    Attributes:
        code: stable code of the error, for scripts.
        exit_code: of the command.
        message: one plain sentence; empty if the text is one.
        docs: URL of the code's description.
        request_id: ID of the request that failed.
        meta: details of a refusal.
    """

    code = "failed"
    exit_code = 1
    message = ""
    docs: str | None = None
    request_id: str | None = None
    meta: Mapping[str, Any] = MappingProxyType({})


class Unreachable(CommandError):
    """The server does not respond, or is not Nest."""

    code = "unreachable"


class Unfinished(CommandError):
    """The work continues after the command."""

    code = "not_finished"
    exit_code = 2


class Refused(CommandError):
    """Nest refused the request.

    Attributes:
        status: HTTP status.
    """

    def __init__(
        self, status: int, code: str, meta: dict[str, Any], *, message: str = "", docs: str | None = None
    ) -> None:
        details = "".join(f"; {name}: {_detail(value)}" for name, value in meta.items() if name != "request_id")
        request = meta.get("request_id", "without an ID")
        reason = EXPLANATIONS.get(code) or message.removesuffix(".") or "refused"
        super().__init__(f"{reason}: {code} ({status}{details}); request {request}")
        self.status = status
        self.code = code
        self.meta = meta
        self.message = message or reason
        self.docs = docs
        self.request_id = meta.get("request_id")


class WrongKey(Refused):
    """Nest rejects the internal key."""

    def __str__(self) -> str:
        """One line with the remedy."""
        return self.message


def _detail(value: Any) -> str:
    """Format a detail for people; invalid fields as ``path: message``."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join(
        f"{each['path'] or 'the whole request'}: {each['message']}"
        if isinstance(each, dict) and each.keys() == {"path", "message"}
        else str(each)
        for each in value
    )


@dataclass(frozen=True, slots=True)
class Client:
    """Calls the methods of one Nest with an internal key.

    Attributes:
        url: base URL of the HTTP API, without a slash at the end.
        key: one of its internal keys.
    """

    url: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, data: Path, profile: str | None = None, *, data_chosen: bool = False) -> Client:
        """Return a client for the first of these that is given.

        1. ``profile``, the option ``--profile``, or the data folder if ``data_chosen``, by the option ``--data``.
        2. ``NEST_URL`` and ``NEST_INTERNAL_KEY``.
        3. The profile that ``NEST_PROFILE`` names.
        4. The profile ``default``.
        5. The Nest of the data folder.

        Raises:
            CommandError: a variable is invalid, only one of the two is set, a profile does not exist or its file is
                refused, or nothing is given and the data folder belongs to no Nest.
        """
        from services.operator.profiles import DEFAULT, find_profile, get_profile  # noqa: PLC0415 -- as below
        from services.operator.settings import AccessSettings  # noqa: PLC0415 -- would slow down `nest --help`
        from shared.variables import SettingsError  # noqa: PLC0415

        if profile is not None:
            return cls._of(get_profile(profile))
        if data_chosen:
            return cls._in(data)
        try:
            access = AccessSettings()
        except SettingsError as invalid:
            raise CommandError(str(invalid)) from None
        url, key = access.url, access.internal_key.get_secret_value() if access.internal_key else ""
        if url and key:
            return cls(url.rstrip("/"), key)
        if url or key:
            raise CommandError(f"{KEY if url else URL} is not set, but {URL if url else KEY} is: set both")
        if access.profile:
            return cls._of(get_profile(access.profile))
        stored = find_profile(DEFAULT)
        if stored is not None:
            return cls._of(stored)
        return cls._in(data)

    @classmethod
    def _in(cls, data: Path) -> Client:
        found = operator_credentials(data)
        if found is None:
            raise CommandError(
                f"which Nest? Set {URL} and {KEY}, store a profile with nest login, or start one with nest up (there is"
                f" none in {data.absolute()})"
            )
        return cls(found.url, found.internal_key)

    @classmethod
    def _of(cls, profile: Profile) -> Client:
        return cls(profile.url, profile.key)

    def call(self, method: str, body: dict[str, Any]) -> Any:
        """Call a method and return its result; None if it has none.

        Raises:
            Unreachable: the server does not respond within 30 s, or is not Nest.
            CommandError: Nest rejects the internal key.
            Refused: Nest refused the request.
        """
        return asyncio.run(self._call(method, body))

    async def _call(self, method: str, body: dict[str, Any]) -> Any:
        import aiohttp  # noqa: PLC0415 -- would slow down `nest --help`

        url = f"{self.url}/1/{VERSION}/{method}"
        headers = {"authorization": f"internal {self.key}", "idempotency-key": secrets.token_hex(16)}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.post(url, json=body, allow_redirects=False) as response,
            ):
                return self._result(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
            reason = str(failure) or type(failure).__name__
            raise Unreachable(f"can't reach Nest at {self.url} ({reason}): check that it runs, and its URL") from None

    def _result(self, status: int, body: bytes) -> Any:
        if status == 204:  # noqa: PLR2004 -- No Content
            return None
        result = json.loads(body)
        if status == 200:  # noqa: PLR2004 -- OK
            return result
        if not isinstance(result, dict) or "code" not in result:
            raise ValueError(f"the server that responded with {status} is not Nest")
        code, meta, message = result["code"], result.get("meta", {}), result.get("message", "")
        docs = f"{self.url}{result['docs']}" if "docs" in result else None
        if code == "access_denied":
            message = f"{self.url} rejects the internal key: use one of its NEST_INTERNAL_KEYS, without the name"
            raise WrongKey(status, code, meta, message=message, docs=docs)
        raise Refused(status, code, meta, message=message, docs=docs)
