import base64
import hashlib
import re
import string
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.magic_links.models import Authorization, magic_link, typed_digits, verifies
from services.auth.tokens.credentials import Code, new_key
from shared.errors import Refusal
from shared.messages.auth.errors import (
    AuthorizationNotFound,
    IncorrectClient,
    IncorrectCodeVerifier,
    IncorrectRedirectUri,
    TokenExpired,
    TokenUsed,
)
from tests.auth.flows import CHALLENGE, CLIENT, REDIRECT_URI, VERIFIER, WRONG_VERIFIER, send_magic_link

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LIFETIME = timedelta(minutes=10)
CODE = Code("authzcode_1", "k" * 64)
CORRECT: dict[str, Any] = {"client_id": CLIENT, "redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER, "at": NOW}
UNRESERVED = string.ascii_letters + string.digits + "-._~"


def issued(**changed: Any) -> Authorization:
    request = send_magic_link(**changed)
    return Authorization.issue(request, request.identifier_value, CODE, lifetime=LIFETIME, at=NOW)


def test_verifier_of_rfc_7636_appendix_b_matches_its_challenge() -> None:
    assert verifies("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")


@given(st.text(UNRESERVED, min_size=43, max_size=128))
def test_rfc_verifier_matches_its_challenge_in_base64url_and_hex(verifier: str) -> None:
    digest = hashlib.sha256(verifier.encode()).digest()
    assert verifies(verifier, base64.urlsafe_b64encode(digest).decode().rstrip("="))
    assert verifies(verifier, digest.hex())


@given(st.text(UNRESERVED, min_size=43, max_size=128))
def test_no_other_verifier_matches_a_challenge(verifier: str) -> None:
    assert verifies(verifier, CHALLENGE) == (verifier == VERIFIER)


@pytest.mark.parametrize("verifier", ["a" * 42, "a" * 129, "a" * 42 + "+", "a" * 42 + "ü", "a" * 43 + "\n"])
def test_verifier_outside_the_rfc_matches_only_a_hex_challenge(verifier: str) -> None:
    digest = hashlib.sha256(verifier.encode()).digest()
    assert not verifies(verifier, base64.urlsafe_b64encode(digest).decode().rstrip("="))
    assert verifies(verifier, digest.hex())


# Unicode Character Database, property Nd: the digits of a script follow its zero.
@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("204817", "204817"),
        ("000000", "000000"),
        (" 204 817\r\n", "204817"),
        ("\u00a0204\u2009817\u3000", "204817"),
        ("2 0 4 8 1 7", "204817"),
        ("\uff12\uff10\uff14\uff18\uff11\uff17", "204817"),
        ("\u0662\u0660\u0664\u0668\u0661\u0667", "204817"),
        ("\u06f2\u06f0\u06f4\u06f8\u06f1\u06f7", "204817"),
        ("20481", None),
        ("2048170", None),
        ("20481a", None),
        ("204-817", None),
        ("-20481", None),
        ("+20481", None),
        ("20481.", None),
        ("1e5\u0660\u0660\u0660", None),
        # Devanagari, superscript, circled and mathematical digits, and an invisible character.
        ("\u0968\u0966\u096a\u096e\u0967\u096d", None),
        ("\u00b2" * 6, None),
        ("\u2461" * 6, None),
        ("\U0001d7d0" * 6, None),
        ("204\u200b817", None),
        ("", None),
        (" ", None),
        ("authzcode_1." + "k" * 64, None),
    ],
)
def test_typed_digits_may_have_spaces_and_other_scripts(text: str, digits: str | None) -> None:
    assert typed_digits(text) == digits


def test_redeemed_authorization_is_used() -> None:
    redeemed = issued().redeem(**CORRECT)
    assert redeemed.used_at == NOW
    with pytest.raises(TokenUsed):
        redeemed.redeem(**CORRECT)


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"at": NOW + LIFETIME}, TokenExpired),
        ({"client_id": "client_two"}, IncorrectClient),
        ({"redirect_uri": f"{REDIRECT_URI}?"}, IncorrectRedirectUri),
        ({"code_verifier": WRONG_VERIFIER}, IncorrectCodeVerifier),
    ],
)
def test_redemption_is_refused(changed: dict[str, Any], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        issued().redeem(**{**CORRECT, **changed})


def test_first_fault_in_the_documented_order_is_reported() -> None:
    wrong: dict[str, Any] = {
        "client_id": "client_two",
        "redirect_uri": "https://other.example/",
        "code_verifier": WRONG_VERIFIER,
        "at": NOW + LIFETIME,
    }
    authorization = issued().revoke(at=NOW)
    steps: list[tuple[type[Refusal], dict[str, Any]]] = [
        (AuthorizationNotFound, {}),
        (TokenExpired, {"at": NOW}),
        (IncorrectClient, {"client_id": CLIENT}),
        (IncorrectRedirectUri, {"redirect_uri": REDIRECT_URI}),
        (IncorrectCodeVerifier, {}),
    ]
    for refusal, corrected in steps:
        with pytest.raises(refusal):
            authorization.redeem(**wrong)
        wrong.update(corrected)
        authorization = issued()


def test_last_wrong_verifier_revokes_the_authorization() -> None:
    authorization = issued()
    for count in range(1, 6):
        assert authorization.revoked_at is None
        authorization = authorization.count_wrong_verifier(max_count=5, at=NOW)
        assert authorization.wrong_verifiers == count
    with pytest.raises(AuthorizationNotFound):
        authorization.redeem(**CORRECT)


@pytest.mark.parametrize(
    ("redirect_uri", "expected"),
    [
        ("https://a.example", "https://a.example?state=s&code=i.k"),
        ("https://a.example/", "https://a.example/?state=s&code=i.k"),
        ("https://a.example/?", "https://a.example/?state=s&code=i.k"),
        ("https://a.example/?b=%20c", "https://a.example/?b=%20c&state=s&code=i.k"),
        ("https://a.example/?b=c&", "https://a.example/?b=c&state=s&code=i.k"),
        ("https://a.example/#top", "https://a.example/?state=s&code=i.k#top"),
        ("https://a.example/?b#?x", "https://a.example/?b&state=s&code=i.k#?x"),
        ("beak://callback", "beak://callback?state=s&code=i.k"),
        ("com.example.app:/cb", "com.example.app:/cb?state=s&code=i.k"),
    ],
)
def test_link_keeps_query_and_fragment_of_the_redirect_uri(redirect_uri: str, expected: str) -> None:
    assert magic_link(redirect_uri, Code("i", "k"), "s") == expected


@given(
    state=st.text(),
    query=st.lists(st.tuples(st.text(string.ascii_letters, min_size=1), st.text(UNRESERVED)), max_size=3),
    flow=st.sampled_from([None, "trial"]),
)
def test_link_parses_to_its_parameters(state: str, query: list[tuple[str, str]], flow: str | None) -> None:
    own = "&".join(f"{name}={value}" for name, value in query)
    redirect_uri = "https://a.example/cb" + (f"?{own}" if own else "")
    parts = urlsplit(magic_link(redirect_uri, CODE, state, flow=flow))
    assert parts.path == "/cb"
    added = [("state", state)] + ([("flow", flow)] if flow else []) + [("code", str(CODE))]
    assert parse_qsl(parts.query, keep_blank_values=True) == [*query, *added]
    assert parts.query.isascii()
    assert not set(parts.query) & set(" \r\n<>\"'")
    assert parse_qs(parts.query, keep_blank_values=True)["code"][-1] == str(CODE)


@pytest.mark.parametrize("last", "._-~!*'()=&?/;,:@+$ü💥")
@pytest.mark.parametrize("flow", [None, "trial"])
def test_link_ends_in_a_letter_or_digit_whatever_the_state_ends_in(last: str, flow: str | None) -> None:
    link = magic_link("https://a.example/cb", Code("authzcode_1", new_key()), f"state{last}", flow=flow)
    assert re.search("[A-Za-z0-9]$", link)
