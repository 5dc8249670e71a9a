"""The verifier of access tokens and the FastAPI dependency, with keys of the test."""

# Without postponed annotations: FastAPI reads those of the routes at run time.

import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fastapi import Depends, FastAPI
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from nest_client import AsyncTokenVerifier, Claims, InvalidToken, KeysUnavailable, TokenVerifier
from nest_client.fastapi import BearerToken

ISSUER = "https://nest.test"
DAY = 86_400
"""Parameters of tests are tokens that are made when the tests are collected, long before they are used."""
KEYS: dict[str, tuple[str, Any]] = {
    "1": ("ES256", ec.generate_private_key(ec.SECP256R1())),
    "2": ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    "3": ("ES512", ec.generate_private_key(ec.SECP521R1())),
}


def jwk_of(kid: str) -> dict[str, Any]:
    algorithm, key = KEYS[kid]
    of = OKPAlgorithm if algorithm == "EdDSA" else ECAlgorithm
    return {**json.loads(of.to_jwk(key.public_key())), "kid": kid, "alg": algorithm, "use": "sig"}


def token(kid: str = "1", *, headers: dict[str, Any] | None = None, by: str = "", **claims: Any) -> str:
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": "client_1", "sub": "user_1", "jti": "t1", "iat": now, "exp": now + DAY, **claims}
    algorithm, key = KEYS[by or kid]
    present = {name: value for name, value in usual.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers={"kid": kid, "typ": "JWT", **(headers or {})})


@dataclass
class Server:
    """The JWKS of a Nest, and the seconds of a clock."""

    kids: list[str] = field(default_factory=lambda: ["1", "2", "3"])
    down: bool = False
    reads: int = 0
    now: float = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{ISSUER}/.well-known/jwks.json"
        self.reads += 1
        return httpx.Response(503) if self.down else httpx.Response(200, json={"keys": [jwk_of(k) for k in self.kids]})

    async def handle(self, request: httpx.Request) -> httpx.Response:
        return self(request)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def verifier(server: Server) -> TokenVerifier:
    http = httpx.Client(transport=httpx.MockTransport(server))
    return TokenVerifier(ISSUER, "client_1", http=http, clock=server.clock)


@pytest.fixture
def async_verifier(server: Server) -> AsyncTokenVerifier:
    http = httpx.AsyncClient(transport=httpx.MockTransport(server.handle))
    return AsyncTokenVerifier(ISSUER, ["client_0", "client_1"], http=http, clock=server.clock)


@pytest.mark.parametrize("kid", KEYS)
@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt"])
def test_valid_tokens_are_accepted(verifier: TokenVerifier, kid: str, typ: str) -> None:
    claims = verifier.verify(token(kid, headers={"typ": typ}, ent=["export"], ent_v=3))

    assert (claims.user_id, claims.client_id, claims.token_id) == ("user_1", "client_1", "t1")
    assert (claims.features, claims.features_version) == (frozenset({"export"}), 3)


def unsigned() -> str:
    parts = [{"alg": "none", "typ": "JWT", "kid": "1"}, {"iss": ISSUER, "aud": "client_1", "sub": "u", "exp": 9**11}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


def signed_with_public_key() -> str:
    public = jwk_of("1")["x"].ljust(64)
    return jwt.encode({"aud": "client_1"}, public, "HS256", headers={"kid": "1", "typ": "JWT"})


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("", id="empty"),
        pytest.param("x.y.z", id="no JWT"),
        pytest.param("a" * 20_000, id="too long"),
        pytest.param(f"{base64.urlsafe_b64encode(b'[' * 9_000).decode()}.e30.x", id="nested header"),
        pytest.param("ü.\ud800.z", id="no UTF-8"),
        pytest.param(unsigned(), id="alg none"),
        pytest.param(signed_with_public_key(), id="HMAC with the public key"),
        pytest.param(token(headers={"typ": "application+jwt"}), id="token of an application"),
        pytest.param(token(headers={"typ": "phone+jwt"}), id="token of a phone app"),
        pytest.param(token(headers={"typ": None}), id="no type"),
        pytest.param(token(headers={"crit": ["x"], "x": 1}), id="critical header"),
        pytest.param(token("1", by="2"), id="algorithm of another key"),
        pytest.param(token("2", by="1"), id="key of another algorithm"),
        pytest.param(token(headers={"kid": "9"}), id="unknown key"),
        pytest.param(token(iss="https://other.test"), id="issuer"),
        pytest.param(token(iss=f"{ISSUER}/"), id="issuer with a slash"),
        pytest.param(token(aud="client_2"), id="audience"),
        pytest.param(token(aud=None), id="no audience"),
        pytest.param(token(sub=None), id="no subject"),
        pytest.param(token(exp=None), id="no expiry"),
        pytest.param(token(nbf=int(time.time()) + DAY), id="not yet"),
        pytest.param(token() + "x", id="signature"),
    ],
)
def test_other_tokens_are_refused(verifier: TokenVerifier, bad: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        verifier.verify(bad)

    assert not caught.value.expired


def test_expired_token_is_refused_as_expired(verifier: TokenVerifier) -> None:
    with pytest.raises(InvalidToken, match="expired") as caught:
        verifier.verify(token(exp=int(time.time()) - 1))

    assert caught.value.expired


def test_token_of_a_faster_clock_is_accepted(verifier: TokenVerifier) -> None:
    assert verifier.verify(token(iat=int(time.time()) + 30))


def test_keys_are_read_once_and_again_after_five_minutes(verifier: TokenVerifier, server: Server) -> None:
    for _ in range(3):
        verifier.verify(token())
    assert server.reads == 1

    server.now = 301
    verifier.verify(token())
    assert server.reads == 2


def test_new_key_is_read_at_its_first_token(verifier: TokenVerifier, server: Server) -> None:
    server.kids = ["1"]
    verifier.verify(token())
    server.kids, server.now = ["1", "2"], 10

    assert verifier.verify(token("2"))
    assert server.reads == 2


def test_withdrawn_key_is_refused_after_the_next_read(verifier: TokenVerifier, server: Server) -> None:
    verifier.verify(token("1"))
    server.kids, server.now = ["2"], 301

    with pytest.raises(InvalidToken):
        verifier.verify(token("1"))


def test_tokens_with_unknown_keys_cause_few_reads(verifier: TokenVerifier, server: Server) -> None:
    for _ in range(50):
        with pytest.raises(InvalidToken):
            verifier.verify(token(headers={"kid": "9"}))

    assert server.reads == 1


def test_keys_are_used_for_an_hour_while_nest_is_away(verifier: TokenVerifier, server: Server) -> None:
    verifier.verify(token())
    server.down, server.now = True, 3599
    assert verifier.verify(token())

    server.now = 3610
    with pytest.raises(KeysUnavailable):
        verifier.verify(token())


def test_first_read_that_fails_is_repeated(verifier: TokenVerifier, server: Server) -> None:
    server.down = True
    with pytest.raises(KeysUnavailable):
        verifier.verify(token())
    server.down, server.now = False, 6

    assert verifier.verify(token())


@pytest.mark.parametrize("audience", ["", [], ["client_1", ""]])
def test_verifier_without_audience_is_refused(audience: Any) -> None:
    with pytest.raises(ValueError, match="audience"):
        TokenVerifier(ISSUER, audience)


@pytest.fixture
async def app(async_verifier: AsyncTokenVerifier) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    signed_in = BearerToken(async_verifier)

    @app.get("/me")
    async def me(user: Annotated[Claims, Depends(signed_in)]) -> str:
        return user.user_id

    @app.get("/export", dependencies=[Depends(BearerToken(async_verifier, feature="export"))])
    async def export() -> str:
        return "done"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as http:
        yield http


@pytest.mark.parametrize(
    ("path", "authorization", "status", "challenge"),
    [
        ("/me", [f"Bearer {token()}"], 200, None),
        ("/me", [f"bearer {token()}"], 200, None),
        ("/me", [], 401, "Bearer"),
        ("/me", ["Bearer "], 401, "Bearer"),
        ("/me", [f"Basic {token()}"], 401, "Bearer"),
        ("/me", [f"Bearer {token()}"] * 2, 401, "Bearer"),
        ("/me", ["Bearer x"], 401, 'Bearer error="invalid_token"'),
        ("/me", [f"Bearer {token(exp=1)}"], 401, 'Bearer error="invalid_token"'),
        ("/export", [f"Bearer {token(ent=['export'])}"], 200, None),
        ("/export", [f"Bearer {token(ent=[])}"], 403, None),
        ("/export", [f"Bearer {token()}"], 403, None),
    ],
)
async def test_dependency_lets_valid_tokens_through(
    app: httpx.AsyncClient, path: str, authorization: list[str], status: int, challenge: str | None
) -> None:
    answer = await app.get(path, headers=[("authorization", value) for value in authorization])

    assert (answer.status_code, answer.headers.get("www-authenticate")) == (status, challenge)


async def test_dependency_answers_503_without_keys(app: httpx.AsyncClient, server: Server) -> None:
    server.down = True
    answer = await app.get("/me", headers={"authorization": f"Bearer {token()}"})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
