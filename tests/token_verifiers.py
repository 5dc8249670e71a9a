"""Verification of access tokens by four independent libraries, as at resource servers of other people."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any, Final

from services.embedded.demo import CLIENT_ID
from tests.stack import Stack

CLIENTS: Final = Path(__file__).parent / "reference" / "clients"
VERIFIERS: Final[dict[str, tuple[str | Path, ...]]] = {
    "authlib": (CLIENTS / "python" / ".venv" / "bin" / "python", CLIENTS / "python" / "verify_token.py"),
    "go-oidc": (CLIENTS / "go" / "bin" / "verify_token",),
    "jose": ("node", CLIENTS / "typescript" / "verify_with_jose.mjs"),
    "openid-client": ("node", CLIENTS / "typescript" / "verify_with_openid_client.mjs"),
}
"""Programs that take issuer, client ID and token, and print the user's ID. `make install-clients` installs them."""
SECONDS: Final = 60


async def verify(verifier: str, nest: Stack, token: str) -> tuple[int | None, str, str]:
    """Run a program and return its exit status, output and errors."""
    arguments = (*VERIFIERS[verifier], nest.environment["NEST_ISSUER"], CLIENT_ID, token)
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def decoded(part: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return fields


async def check_verifiers(nest: Stack, email: str, header: dict[str, str], claims: dict[str, str]) -> None:
    """Log in, and let every library verify the token, and a forged one."""
    tokens = await nest.log_in(email)
    token: str = tokens["access_token"]
    head, payload, signature = token.split(".")
    assert header.items() <= decoded(head).items()
    assert decoded(payload).keys() == {"v", "jti", "iss", "sub", "aud", "iat", "exp"} | claims.keys()
    assert claims.items() <= decoded(payload).items()
    results = await asyncio.gather(*(verify(verifier, nest, token) for verifier in VERIFIERS))
    for verifier, result in zip(VERIFIERS, results, strict=True):
        assert result[:2] == (0, f"{tokens['user_id']}\n"), f"{verifier}: {result}"
    forged = ".".join((head, payload, ("A" if signature[0] != "A" else "B") + signature[1:]))
    results = await asyncio.gather(*(verify(verifier, nest, forged) for verifier in VERIFIERS))
    for verifier, (status, out, _err) in zip(VERIFIERS, results, strict=True):
        assert (status, out) == (1, ""), verifier
