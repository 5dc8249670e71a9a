"""Access tokens at resource servers of other people, which discover the keys and verify the tokens with libraries."""

from __future__ import annotations

from tests.stack import Stack
from tests.token_verifiers import check_verifiers


async def test_libraries_accept_the_discovery_and_verify_tokens(nest: Stack, email: str) -> None:
    await check_verifiers(nest, email, {"alg": "ES256", "typ": "JWT"}, {})
