"""PKCE: a running Nest orders no link without an S256 challenge, and redeems no code without its verifier."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.abuse.conftest import Target
from tests.stack import Login

DOWNGRADES: Final[list[dict[str, Any]]] = [
    {"code_challenge_method": "plain"},
    {"code_challenge_method": "s256"},
    {"code_challenge_method": ""},
    {"code_challenge_method": None},
    {"code_challenge_method": ...},
    {"code_challenge": ""},
    {"code_challenge": None},
    {"code_challenge": ...},
    {"code_challenge": "short"},
    {"code_challenge_method": ..., "code_challenge": ...},
]


def changed(body: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A body with changed fields; ``...`` removes one."""
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


@pytest.mark.parametrize("changes", DOWNGRADES, ids=str)
async def test_link_without_an_s256_challenge_cannot_be_ordered(
    target: Target, email: str, changes: dict[str, Any]
) -> None:
    """RFC 9700 sections 2.1.1 and 4.8, RFC 7636 section 4.3."""
    body = changed(Login(email).request(), changes)
    device = {"platform": "mac", "beak_id": email, "fingerprint": email}
    for method, more in (("send_magic_link", {}), ("create_trial_and_magic_link", {"device": device})):
        response = await target.nest.call(method, {**body, **more})
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert target.nest.inbox.arrivals(email) == []


async def test_code_without_its_verifier_opens_nothing(target: Target, email: str) -> None:
    login = Login(email)
    code = await target.nest.code(login)
    for verifier, refusal in ((..., "code_verifier_missing"), ("", "code_verifier_missing"), ("x" * 43, None)):
        body = changed(login.redemption(code), {"code_verifier": verifier})
        response = await target.nest.call("authenticate_user", body)
        assert response.status_code == 400
        assert response.json()["code"] == (refusal or "incorrect_code_verifier")
    assert (await target.nest.call("authenticate_user", login.redemption(code))).status_code == 200
