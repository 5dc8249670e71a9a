"""The login helper: PKCE, state, and the redirect's URL."""

from __future__ import annotations

import json

import pytest

from fake_nest import FakeNest
from nest_client import Client, MemoryStore, PendingLogin, errors

REDIRECT = "http://127.0.0.1:8080/callback"


def test_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    pending = PendingLogin("c", REDIRECT, "s", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")

    assert pending.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_logins_are_random_and_can_be_kept_as_json() -> None:
    one, other = PendingLogin.new("c", REDIRECT), PendingLogin.new("c", REDIRECT)

    assert len({one.state, other.state, one.verifier, other.verifier}) == 4
    assert 43 <= len(one.verifier) <= 128
    assert PendingLogin.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert one.verifier not in repr(one)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("state=s%2B1&code=id.key1", "id.key1"),
        ("flow=trial&state=s%2B1&code=id.key1#part", "id.key1"),
        ("state=own&code=own&state=s%2B1&code=id.key1", "id.key1"),
    ],
)
def test_code_of_the_redirect(query: str, code: str) -> None:
    assert PendingLogin("c", REDIRECT, "s+1", "v").code_in(f"{REDIRECT}?{query}") == code


@pytest.mark.parametrize("query", ["", "code=x", "state=&code=x", "state=other&code=x", "state=s", "state=ü&code=x"])
def test_redirect_of_another_login_is_refused(query: str) -> None:
    with pytest.raises(errors.StateMismatch):
        PendingLogin("c", REDIRECT, "s", "v").code_in(f"{REDIRECT}?{query}")


def test_start_and_finish_send_what_nest_needs(client: Client, fake: FakeNest) -> None:
    session = client.session(MemoryStore())
    pending = client.start_login("a@b.c", client_id="c", redirect_uri=REDIRECT, device={"platform": "mac"})
    tokens = session.finish_login(pending, url=f"{REDIRECT}?state={pending.state}&code=x.y")

    ordered, redeemed = (json.loads(each.content) for each in fake.requests)
    assert ordered["code_challenge"] == pending.challenge
    assert "locale" not in ordered
    assert redeemed == {
        "client_id": "c",
        "grant_type": "authorization_code",
        "redirect_uri": REDIRECT,
        "code": "x.y",
        "code_verifier": pending.verifier,
    }
    assert session.tokens == tokens


def test_login_for_a_trial_orders_one(client: Client, fake: FakeNest) -> None:
    device = {"platform": "mac", "beak_id": "b", "fingerprint": "f"}
    client.start_login("a@b.c", client_id="c", redirect_uri=REDIRECT, trial_device=device)  # type: ignore[arg-type]

    assert fake.calls("create_trial_and_magic_link")


def test_finish_that_is_repeated_has_the_same_key(client: Client, fake: FakeNest) -> None:
    pending = PendingLogin.new("c", REDIRECT)
    one, again = (client.finish_login(pending, code="204817") for _ in range(2))
    client.finish_login(pending, code="204818")

    keys = [each.headers["idempotency-key"] for each in fake.requests]
    assert (keys[0] == keys[1], keys[1] == keys[2]) == (True, False)
    assert one.access_token == again.access_token


@pytest.mark.parametrize("given", [{}, {"url": "u", "code": "c"}])
def test_finish_takes_either_url_or_code(client: Client, given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either"):
        client.finish_login(PendingLogin.new("c", REDIRECT), **given)
