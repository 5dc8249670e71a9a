"""Access is calling, and every way known of pretending to be somebody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from services.gateway import authentication
from services.gateway.auth_topics import Clients, Revocations, SigningKeys
from services.gateway.authentication import Authenticator
from services.gateway.errors import AccessDenied, Unauthorized
from shared.errors import Unavailable
from shared.messages import Caller
from shared.messages.auth.signing_keys import SigningKeyPublished
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, Signer, World, client
from tests.stack import eventually


@dataclass
class Record:
    """What is read of a record."""

    value: bytes | None
    key: bytes | None = None
    topic: str = "t"
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Door:
    """An Authenticator whose clock and announcements are ours."""

    signer: Signer = field(default_factory=lambda: Signer.new("key-1"))
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.keys = SigningKeys()
        self.clients = Clients()
        self.revocations = Revocations(lambda: self.now)
        self.authenticator = Authenticator(
            self.keys,
            self.clients,
            self.revocations,
            internal_keys=INTERNAL_KEYS,
            issuer=ISSUER,
            clock=lambda: self.now,
        )
        self.announce(self.signer)
        self.know("client_1")

    def announce(self, signer: Signer) -> None:
        self.keys.apply(Record(signer.announcement.model_dump_json().encode(), signer.kid.encode()))

    def know(self, client_id: str, *, disabled: bool = False) -> None:
        announced = client(client_id, disabled=disabled)
        self.clients.apply(Record(announced.model_dump_json().encode(), client_id.encode()))

    def revoke(self, token_id: str, expires_at: float) -> None:
        body = {"token_id": token_id, "expires_at": expires_at}
        self.revocations.apply(Record(json.dumps(body).encode()))

    def caller(self, authorization: str | bytes, ip: str = "192.0.2.1") -> Caller:
        raw = authorization.encode("latin-1") if isinstance(authorization, str) else authorization
        return self.authenticator.caller(raw, ip)

    def reason(self, token: str | bytes) -> str:
        """Why a bearer token is refused."""
        raw = token.encode() if isinstance(token, str) else token
        with pytest.raises(Unauthorized) as refused:
            self.authenticator.caller(b"bearer " + raw, None)
        return refused.value.body()["reasons"][0]["code"]


@pytest.fixture
def door() -> Door:
    return Door()


def _part(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _es256(signer: Signer, header: dict[str, Any], claims: Any) -> str:
    """A token that is really signed, whatever its header says."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    signed = f"{_part(header)}.{_part(claims)}"
    r, s = decode_dss_signature(signer.private.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_nobody_says_who_they_are(door: Door) -> None:
    assert door.authenticator.caller(None, "192.0.2.1") == Caller(kind="anonymous", client_ip="192.0.2.1")


@pytest.mark.parametrize("scheme", ["bearer", "Bearer", "BEARER"])
def test_a_token_tells_its_user(door: Door, scheme: str) -> None:
    found = door.caller(f"{scheme} {door.signer.token('user_9', jti='acstok_9')}")
    assert found == Caller(kind="user", user_id="user_9", token_id="acstok_9", client_ip="192.0.2.1")


@pytest.mark.parametrize("key", INTERNAL_KEYS)
@pytest.mark.parametrize("scheme", ["internal", "Internal"])
def test_every_live_internal_key_opens(door: Door, scheme: str, key: str) -> None:
    assert door.caller(f"{scheme} {key}").kind == "internal"


@pytest.mark.parametrize("key", ["", "x", INTERNAL_KEYS[0][:-1], INTERNAL_KEYS[0] + "x", " ".join(INTERNAL_KEYS), "é"])
def test_a_wrong_internal_key_is_denied(door: Door, key: str) -> None:
    with pytest.raises(AccessDenied):
        door.caller(f"internal {key}")


def test_without_internal_keys_nobody_is_internal() -> None:
    access = Authenticator(SigningKeys(), Clients(), Revocations(), internal_keys=(), issuer=ISSUER)
    for shown in (b"internal ", b"internal", b"internal x"):
        with pytest.raises(AccessDenied):
            access.caller(shown, None)


@pytest.mark.parametrize("shown", [b"", b"basic dXNlcjpwYXNz", b"token", b"bearer:x", b"\xff\xfe x", b" bearer x"])
def test_another_scheme_is_an_unknown_token_type(door: Door, shown: bytes) -> None:
    with pytest.raises(Unauthorized) as refused:
        door.caller(shown)
    assert refused.value.reasons[0].code == "unknown_token_type"


@pytest.mark.parametrize(
    "token",
    [
        *("", "a", "a.b", "a.b.c", "..", "a.b.c.d", "=.=.=", "\x00.\x00.\x00"),
        f"{_part({'alg': 'ES256'})}.{_part({})}.!!!",
        f"{_part(b'not json')}.{_part({})}.{_part(b'x')}",
        f"{_part([])}.{_part({})}.{_part(b'x')}",
        f"{_part(b'{' * 3)}.{_part({})}.{_part(b'x')}",
        f"{_part(b'[' * 2000)}.{_part({})}.{_part(b'x')}",
        "a" * 5000 + ".b.c",
        "a" * 1_000_000 + ".b.c",
        b"\xff.\xff.\xff",
    ],
)
def test_what_is_not_a_jwt_is_malformed(door: Door, token: str | bytes) -> None:
    assert door.reason(token) == "malformed_token"


class TestForgeries:
    def test_no_algorithm(self, door: Door) -> None:
        for algorithm in ("none", "None", "NONE", "", None, 0):
            for signature in ("", _part(b"x" * 64)):
                header = {"alg": algorithm, "typ": "JWT", "kid": "key-1"}
                token = f"{_part(header)}.{_part(door.signer.claims())}.{signature}"
                assert door.reason(token) == "invalid_token", (algorithm, signature)

    def test_the_public_key_as_a_shared_secret(self, door: Door) -> None:
        public = door.signer.private.public_key()
        secrets = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(door.signer.jwk).encode(),
        ]
        for algorithm, digest in {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.items():
            for secret in secrets:
                signed = f"{_part({'alg': algorithm, 'typ': 'JWT', 'kid': 'key-1'})}.{_part(door.signer.claims())}"
                token = f"{signed}.{_part(hmac.new(secret, signed.encode(), digest).digest())}"
                assert door.reason(token) == "invalid_token"

    def test_another_key_under_our_kid(self, door: Door) -> None:
        assert door.reason(Signer.new("key-1").token()) == "invalid_token"

    @pytest.mark.parametrize(
        "kid", ["key-2", "", "../../dev/null", "' OR 1=1 --", "key-1\x00", {"$ne": ""}, ["key-1"], 1]
    )
    def test_a_kid_that_was_not_announced(self, door: Door, kid: Any) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": kid}
        assert door.reason(_es256(door.signer, header, door.signer.claims())) in ("invalid_token", "malformed_token")

    def test_no_kid(self, door: Door) -> None:
        assert door.reason(_es256(door.signer, {"alg": "ES256", "typ": "JWT"}, door.signer.claims())) == "invalid_token"

    @pytest.mark.parametrize(
        "extra",
        [
            {"jku": "http://127.0.0.1:1/jwks.json"},
            {"x5u": "http://127.0.0.1:1/cert.pem"},
            {"x5c": ["MIIB"]},
            {"jwk": {"kty": "EC"}},
            {"crit": ["exp"]},
            {"b64": True},
            {"zip": "DEF"},
            {"cty": "JWT"},
        ],
    )
    def test_a_header_that_wants_to_be_followed(self, door: Door, extra: dict[str, Any]) -> None:
        """Even with a valid signature: nothing in a header is followed, and nothing unknown is passed over."""
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1", **extra}
        assert door.reason(_es256(door.signer, header, door.signer.claims())) == "invalid_token"

    @pytest.mark.parametrize("kind", ["at+jwt", "dpop+jwt", "deletion+jwt", "", None, 1])
    def test_another_type_of_token_of_ours(self, door: Door, kind: Any) -> None:
        header = {"alg": "ES256", "typ": kind, "kid": "key-1"}
        assert door.reason(_es256(door.signer, header, door.signer.claims())) == "invalid_token"

    @pytest.mark.parametrize("kind", ["application+jwt", "deletion+jwt"])
    def test_an_applications_users_token_although_its_claims_are_those_of_an_access_token(
        self, door: Door, kind: str
    ) -> None:
        assert door.reason(door.signer.token(header={"typ": kind})) == "invalid_token"

    def test_a_claim_twice(self, door: Door) -> None:
        """Of two readers one could take the first, the other the last."""
        claims = json.dumps(door.signer.claims())
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        for twice in ('{"exp": 9999999999, ', '{"aud": "client_1", ', '{"a": {"b": 1, "b": 2}, '):
            assert door.reason(_es256(door.signer, header, (twice + claims[1:]).encode())) == "invalid_token"

    def test_a_header_twice(self, door: Door) -> None:
        header = b'{"alg": "none", "alg": "ES256", "typ": "JWT", "kid": "key-1"}'
        assert door.reason(_es256(door.signer, header, door.signer.claims())) == "invalid_token"

    def test_a_depth_that_no_parser_survives(self, door: Door) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        deep = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
        assert door.reason(_es256(door.signer, header, deep)) == "malformed_token"
        assert door.reason(_es256(door.signer, deep, door.signer.claims())) == "malformed_token"

    @pytest.mark.parametrize("missing", ["exp", "iat", "iss", "sub", "aud", "jti"])
    def test_a_claim_that_is_missing(self, door: Door, missing: str) -> None:
        assert door.reason(door.signer.token(**{missing: None})) == "invalid_token"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"iss": "http://evil.test"},
            {"iss": ISSUER + "/"},
            {"iss": [ISSUER]},
            {"aud": ""},
            {"aud": ["client_1"]},
            {"aud": 1},
            {"sub": ""},
            {"sub": 7},
            {"jti": ""},
            {"jti": {"$gt": ""}},
            {"exp": "9999999999"},
            {"exp": 9999999999.5},
            {"exp": True},
            {"exp": float("inf")},
            {"iat": "now"},
            {"iat": 99999999999},
            {"nbf": 99999999999},
        ],
    )
    def test_a_claim_that_is_wrong(self, door: Door, wrong: dict[str, Any]) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        assert door.reason(_es256(door.signer, header, door.signer.claims() | wrong)) in (
            "invalid_token",
            "malformed_token",
        )

    @pytest.mark.parametrize("payload", [b"[]", b"null", b"x", b"{", b"[" * 2000, b'{"a":' * 2000])
    def test_claims_that_are_no_object(self, door: Door, payload: bytes) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        assert door.reason(_es256(door.signer, header, payload)) in ("invalid_token", "malformed_token")

    def test_a_changed_bit_anywhere(self, door: Door) -> None:
        token = door.signer.token()
        for position in range(0, len(token), 7):
            changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
            assert door.reason(changed) in ("invalid_token", "malformed_token")

    def test_the_algorithm_of_another_curve(self, door: Door) -> None:
        for algorithm in ("ES512", "ES384", "ES256K", "EdDSA", "RS256", "PS256"):
            header = {"alg": algorithm, "typ": "JWT", "kid": "key-1"}
            assert door.reason(_es256(door.signer, header, door.signer.claims())) == "invalid_token"


@pytest.mark.parametrize("version", ["2", "", 1, None])
def test_another_version_of_claims_is_refused(door: Door, version: Any) -> None:
    assert door.reason(door.signer.token(v=version)) == "invalid_token_version"


def test_a_token_ends_at_its_second_although_it_was_good_before(door: Door) -> None:
    door.now = 2_000_000_000 - 1
    token = door.signer.token(iat=int(time.time()), exp=2_000_000_000)
    assert door.caller(f"bearer {token}").user_id == "user_1"
    door.now = 2_000_000_000
    assert door.reason(token) == "token_expired"


def test_a_token_that_was_good_is_refused_once_it_is_revoked(door: Door) -> None:
    token, other = door.signer.token(jti="one"), door.signer.token(jti="two")
    assert door.caller(f"bearer {token}").kind == "user"
    door.revoke("one", door.now + 3600)
    assert door.reason(token) == "token_revoked"
    assert door.caller(f"bearer {other}").kind == "user"


def test_a_token_that_was_good_is_refused_once_its_key_is_gone(door: Door) -> None:
    token = door.signer.token()
    assert door.caller(f"bearer {token}").kind == "user"
    door.keys.apply(Record(None, b"key-1"))
    assert door.reason(token) == "invalid_token"


def test_rotation_keeps_old_tokens_good(door: Door) -> None:
    old = door.signer.token()
    new = Signer.new("key-2")
    door.announce(new)
    assert door.caller(f"bearer {old}").kind == door.caller(f"bearer {new.token()}").kind == "user"


def test_the_address_is_the_one_of_this_request(door: Door) -> None:
    token = door.signer.token()
    assert door.caller(f"bearer {token}", "192.0.2.1").client_ip == "192.0.2.1"
    first = door.caller(f"bearer {token}", "192.0.2.1")
    assert door.caller(f"bearer {token}", "192.0.2.2").client_ip == "192.0.2.2"
    assert first.client_ip == "192.0.2.1"


def test_remembered_tokens_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "CACHED_TOKENS", 3)
    tokens = [door.signer.token(jti=str(number)) for number in range(5)]
    for token in tokens:
        door.caller(f"bearer {token}")
    assert len(door.authenticator._tokens) == 3
    assert door.caller(f"bearer {tokens[0]}").kind == "user"


def test_a_refused_token_is_not_remembered(door: Door) -> None:
    door.reason(Signer.new("key-1").token())
    assert not door.authenticator._tokens


def test_a_remembered_token_costs_microseconds(door: Door) -> None:
    shown = f"bearer {door.signer.token()}".encode()
    door.authenticator.caller(shown, None)
    began = time.process_time()
    for _ in range(10_000):
        door.authenticator.caller(shown, None)
    assert time.process_time() - began < 0.5  # 50 µs a call, where checking a signature takes 150


class TestKeys:
    @pytest.mark.parametrize(
        ("private", "algorithm"),
        [
            (ec.generate_private_key(ec.SECP256R1()), "ES256"),
            (ec.generate_private_key(ec.SECP521R1()), "ES512"),
            (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        ],
    )
    def test_each_selectable_algorithm_verifies(self, door: Door, private: Any, algorithm: str) -> None:
        kind = OKPAlgorithm if algorithm == "EdDSA" else ECAlgorithm
        jwk = kind.to_jwk(private.public_key(), as_dict=True)
        published = SigningKeyPublished(key="other", kid="other", jwk=jwk)
        door.keys.apply(Record(published.model_dump_json().encode()))
        token = jwt.encode(door.signer.claims(), private, algorithm, {"kid": "other"})
        assert door.caller(f"bearer {token}").kind == "user"
        shown = json.loads(door.keys.jwks)["keys"][-1]
        assert (shown["alg"], shown["use"], shown["kid"]) == (algorithm, "sig", "other")

    @pytest.mark.parametrize(
        "change",
        [
            {"d": "private"},
            {"kty": "oct", "k": "c2VjcmV0"},
            {"kty": "RSA"},
            {"crv": "P-384"},
            {"crv": "secp256k1"},
            {"alg": "HS256"},
            {"alg": "none"},
            {"kid": "another"},
            {"x": "AAAA"},
            {"x": "!"},
        ],
    )
    def test_a_key_that_is_not_a_public_signing_key_of_ours_is_not_learned(
        self, door: Door, change: dict[str, str]
    ) -> None:
        signer = Signer.new("key-2")
        published = SigningKeyPublished(key="key-2", kid="key-2", jwk=signer.jwk | change)
        door.keys.apply(Record(published.model_dump_json().encode()))
        assert door.keys.find("key-2") is None
        assert b"key-2" not in door.keys.jwks

    @pytest.mark.parametrize("value", [b"", b"x", b"[]", b"{}", b"\xff", b"[" * 5000])
    def test_garbage_is_passed_over(self, door: Door, value: bytes) -> None:
        door.keys.apply(Record(value))
        door.clients.apply(Record(value))
        door.revocations.apply(Record(value))
        assert door.caller(f"bearer {door.signer.token()}").kind == "user"


class TestClients:
    def test_a_token_for_nobody_we_know_is_refused(self, door: Door) -> None:
        assert door.reason(door.signer.token(aud="an app with a phone")) == "invalid_token"

    def test_a_token_ends_with_its_client_and_comes_back_with_it(self, door: Door) -> None:
        token = door.signer.token()
        assert door.caller(f"bearer {token}").kind == "user"
        door.know("client_1", disabled=True)
        assert door.reason(token) == "invalid_token"
        door.know("client_1")
        assert door.caller(f"bearer {token}").kind == "user"
        door.clients.apply(Record(None, b"client_1"))
        door.know("client_2")
        assert door.reason(token) == "invalid_token"

    def test_a_gateway_that_knows_no_client_yet_says_so_instead_of_logging_people_out(self, door: Door) -> None:
        token = door.signer.token()
        door.clients.apply(Record(None, b"client_1"))
        with pytest.raises(Unavailable):
            door.caller(f"bearer {token}")


class TestRevocations:
    def test_are_forgotten_when_the_token_would_have_expired(self, door: Door) -> None:
        door.revoke("one", door.now + 10)
        door.revoke("two", door.now + 20)
        assert len(door.revocations) == 2
        door.now += 15
        door.revoke("three", door.now + 10)
        assert "one" not in door.revocations
        assert len(door.revocations) == 2

    def test_of_expired_tokens_are_not_kept(self, door: Door) -> None:
        door.revoke("one", door.now - 1)
        assert len(door.revocations) == 0

    def test_may_come_twice(self, door: Door) -> None:
        for _ in range(2):
            door.revoke("one", door.now + 10)
        assert len(door.revocations._by_expiry) == 1


async def test_a_revoked_token_stops_working_within_a_second(world: World) -> None:
    token = world.signer.token()
    headers = {"authorization": f"bearer {token}"}
    call = {"json": {"user_id": "user_1"}, "headers": headers}
    assert (await world.http.post("/1/2021-10-06/get_user", **call)).status_code == 204
    await world.revoke(token)
    await asyncio.sleep(1.0)  # the promise, in full
    refused = await world.http.post("/1/2021-10-06/get_user", **call)
    assert refused.status_code == 401
    assert refused.json()["code"] == "unauthorized"
    assert refused.json()["reasons"] == [{"code": "token_revoked"}]


async def test_a_key_announced_while_the_gateway_runs_is_learned_and_forgotten(world: World) -> None:
    signer = Signer.new("key-of-later")
    call = {"json": {"user_id": "user_1"}, "headers": {"authorization": f"bearer {signer.token()}"}}
    assert (await world.http.post("/1/2021-10-06/get_user", **call)).status_code == 401
    await world.announce(signer.announcement)
    await eventually(lambda: _answers(world, call, 204))
    jwks = (await world.http.get("/.well-known/jwks.json")).json()
    assert signer.jwk in jwks["keys"]
    await world.services.producer.send_record("auth.keys", None, [], key=signer.kid.encode())
    await eventually(lambda: _answers(world, call, 401))


async def _answers(world: World, call: dict[str, Any], status: int) -> bool:
    return (await world.http.post("/1/2021-10-06/get_user", **call)).status_code == status


async def test_a_disabled_clients_tokens_stop_within_a_second(world: World) -> None:
    await world.announce(client("client_2"))
    headers = {"authorization": f"bearer {world.signer.token(aud='client_2')}"}
    call = {"json": {"user_id": "user_1"}, "headers": headers}
    await eventually(lambda: _answers(world, call, 204))
    await world.announce(client("client_2", disabled=True))
    await asyncio.sleep(1.0)  # the promise, in full
    refused = await world.http.post("/1/2021-10-06/get_user", **call)
    assert (refused.status_code, refused.json()["reasons"]) == (401, [{"code": "invalid_token"}])
