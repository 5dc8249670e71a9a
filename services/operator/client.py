"""How does a verb reach Nest? By its HTTP API: the environment says where, else the data folder of `nest up`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.embedded.credentials import operator_credentials
from services.operator.errors import NowhereToGo, OutOfReach, RefusedVerb, WrongKey

VERSION: Final = "2021-10-06"
URL: Final = "NEST_URL"
KEY: Final = "NEST_INTERNAL_KEY"
SECONDS: Final = 30.0
"""How long an answer may take."""


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one Nest as an operator.

    Attributes:
        url: where its API is, without a slash at the end.
        key: one of its internal keys.
    """

    url: str
    key: str

    @classmethod
    def of(cls, data: Path, environment: Mapping[str, str] = os.environ) -> Client:
        """The Nest that ``NEST_URL`` and ``NEST_INTERNAL_KEY`` name; with neither, that of a data folder.

        Raises:
            NowhereToGo: only one of the two is set, or none, and the folder has never had a Nest.
        """
        url, key = environment.get(URL, ""), environment.get(KEY, "")
        if url and key:
            return cls(url.rstrip("/"), key)
        if url or key:
            raise NowhereToGo(f"{KEY if url else URL} is not set, and {URL if url else KEY} is: give both")
        found = operator_credentials(data)
        if found is None:
            raise NowhereToGo(
                f"which Nest? Set {URL} and {KEY}, or start one with nest up (there is none in {data.absolute()})"
            )
        return cls(found.url, found.internal_key)

    def call(self, method: str, body: dict[str, Any]) -> Any:
        """What a method answers; None for no result.

        Raises:
            OutOfReach: nobody answers, or it is not Nest.
            WrongKey: the internal key is not taken.
            RefusedVerb: Nest said no.
        """
        return asyncio.run(self._call(method, body))

    async def _call(self, method: str, body: dict[str, Any]) -> Any:
        # Here, so that `nest --help` needs not wait for it.
        import aiohttp  # noqa: PLC0415

        headers = {"authorization": f"internal {self.key}", "idempotency-key": secrets.token_hex(16)}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
                session.post(
                    f"{self.url}/1/{VERSION}/{method}", json=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                return self._result(answer.status, await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
            reason = str(failure) or type(failure).__name__
            raise OutOfReach(f"can't reach Nest at {self.url} ({reason}): does it run, and is {URL} right?") from None

    def _result(self, status: int, body: bytes) -> Any:
        if status == 204:  # noqa: PLR2004 -- No Content
            return None
        said = json.loads(body)
        if status == 200:  # noqa: PLR2004 -- OK
            return said
        if not isinstance(said, dict) or "code" not in said:
            raise ValueError(f"what answered {status} there is not Nest")
        if said["code"] == "access_denied":
            raise WrongKey(f"{self.url} does not take this internal key: {KEY} must be one of its NEST_INTERNAL_KEYS")
        raise RefusedVerb(status, said["code"], said.get("meta", {}))
