"""Authentication, with all known kinds of forged tokens."""

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
from pydantic import SecretStr

from services.gateway import authentication
from services.gateway.auth_topics import Clients, Revocations, SigningKeys
from services.gateway.authentication import Authenticator
from services.gateway.errors import AccessDenied, Unauthorized
from services.gateway.failed_authentications import FailedAuthentications
from shared.errors import Unavailable
from shared.messages import Caller
from shared.messages.auth.audit import RecordAuditEntry
from shared.messages.auth.signing_keys import SigningKeyPublished
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, GatewayStack, Signer, client
from tests.stack import eventually


@dataclass
class Record:
    """A Kafka record."""

    value: bytes | None
    key: bytes | None = None
    topic: str = "t"
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class Published(list[tuple[RecordAuditEntry, Caller]]):
    """Audit entries that the gateway has sent, with their callers."""

    async def append_entry(self, entry: RecordAuditEntry, caller: Caller) -> None:
        self.append((entry, caller))


@dataclass
class AuthenticatorHarness:
    """An authenticator with a fake clock and without Kafka."""

    signer: Signer = field(default_factory=lambda: Signer.new("key-1"))
    now: float = field(default_factory=time.time)
    published: Published = field(default_factory=Published)

    def __post_init__(self) -> None:
        self.keys = SigningKeys()
        self.clients = Clients()
        self.revocations = Revocations(lambda: self.now)
        self.failed = FailedAuthentications(self.published.append_entry, per_minute=1_000, clock=lambda: self.now)
        self.authenticator = Authenticator(
            self.keys,
            self.clients,
            self.revocations,
            self.failed,
            internal_keys=[("default", SecretStr(key)) for key in INTERNAL_KEYS],
            issuer=ISSUER,
            clock=lambda: self.now,
        )
        self.publish_key(self.signer)
        self.publish_client("client_1")

    def publish_key(self, signer: Signer) -> None:
        self.keys.apply(Record(signer.published.model_dump_json().encode(), signer.kid.encode()))

    def publish_client(self, client_id: str, *, disabled: bool = False) -> None:
        event = client(client_id, disabled=disabled)
        self.clients.apply(Record(event.model_dump_json().encode(), client_id.encode()))

    def revoke(self, token_id: str, expires_at: float) -> None:
        body = {"token_id": token_id, "expires_at": expires_at}
        self.revocations.apply(Record(json.dumps(body).encode()))

    def caller(self, authorization: str | bytes, ip: str = "192.0.2.1") -> Caller:
        raw = authorization.encode("latin-1") if isinstance(authorization, str) else authorization
        return self.authenticator.caller(raw, ip)

    def reason(self, token: str | bytes) -> str:
        """Code of the reason for which a bearer token is refused."""
        raw = token.encode() if isinstance(token, str) else token
        with pytest.raises(Unauthorized) as refused:
            self.authenticator.caller(b"bearer " + raw, None)
        return refused.value.body()["reasons"][0]["code"]


@pytest.fixture
def harness() -> AuthenticatorHarness:
    return AuthenticatorHarness()


def bare_authenticator(keys: list[tuple[str, SecretStr]]) -> Authenticator:
    failed = FailedAuthentications(Published().append_entry, per_minute=1_000)
    return Authenticator(SigningKeys(), Clients(), Revocations(), failed, internal_keys=keys, issuer=ISSUER)


def _part(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _es256(signer: Signer, header: dict[str, Any], claims: Any) -> str:
    """A token with a valid ES256 signature and any header."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    signed = f"{_part(header)}.{_part(claims)}"
    r, s = decode_dss_signature(signer.private.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def published_at(milliseconds: int) -> tuple[tuple[str, bytes], ...]:
    return (("time", b"%d" % milliseconds),)


def test_copy_of_a_withdrawn_key_is_ignored_and_a_later_announcement_accepted(harness: AuthenticatorHarness) -> None:
    """The record of a leaked key has a valid MAC for ever. After a restore auth announces keys anew."""
    leaked = Signer.new("leaked")
    body, token = leaked.published.model_dump_json().encode(), leaked.token()
    harness.keys.apply(Record(body, b"leaked", headers=published_at(1_000)))
    assert harness.caller(f"bearer {token}").kind == "user"
    harness.keys.apply(Record(None, b"leaked", headers=published_at(2_000)))
    harness.keys.apply(Record(body, b"leaked", headers=published_at(1_000)))
    assert harness.reason(token) == "invalid_token"
    harness.keys.apply(Record(body, b"leaked", headers=published_at(3_000)))
    assert harness.caller(f"bearer {token}").kind == "user"


@pytest.mark.parametrize(("older_by", "enabled"), [(1_000, True), (61_000, False)])
def test_copy_of_an_old_client_announcement_is_ignored(
    harness: AuthenticatorHarness, older_by: int, *, enabled: bool
) -> None:
    """The clocks of auth's instances differ, so a state that is only seconds older may be the newer one."""
    for disabled, at in ((True, 1_000_000), (False, 1_000_000 - older_by)):
        body = client("client_2", disabled=disabled).model_dump_json().encode()
        harness.clients.apply(Record(body, b"client_2", headers=published_at(at)))
    assert harness.clients.enabled("client_2") is enabled


@pytest.mark.parametrize("kind", ["JWT", "at+jwt"])
def test_both_types_of_access_tokens_are_accepted(harness: AuthenticatorHarness, kind: str) -> None:
    token = _es256(harness.signer, {"alg": "ES256", "typ": kind, "kid": "key-1"}, harness.signer.claims())
    assert harness.authenticator.caller(f"bearer {token}".encode(), None).kind == "user"


def test_missing_header_is_an_anonymous_caller(harness: AuthenticatorHarness) -> None:
    assert harness.authenticator.caller(None, "192.0.2.1") == Caller(kind="anonymous", client_ip="192.0.2.1")


@pytest.mark.parametrize("scheme", ["bearer", "Bearer", "BEARER"])
def test_token_identifies_its_user(harness: AuthenticatorHarness, scheme: str) -> None:
    caller = harness.caller(f"{scheme} {harness.signer.token('user_9', jti='acstok_9')}")
    assert caller == Caller(
        kind="user", user_id="user_9", token_id="acstok_9", client_id="client_1", client_ip="192.0.2.1"
    )


@pytest.mark.parametrize("key", INTERNAL_KEYS)
@pytest.mark.parametrize("scheme", ["internal", "Internal"])
def test_every_internal_key_is_accepted(harness: AuthenticatorHarness, scheme: str, key: str) -> None:
    assert harness.caller(f"{scheme} {key}").kind == "internal"


@pytest.mark.parametrize(("key", "name"), [("a" * 32, "ops"), ("b" * 32, "backend"), ("c" * 32, "ops")])
def test_caller_has_the_name_of_the_internal_key(key: str, name: str) -> None:
    keys = [("ops", SecretStr("a" * 32)), ("backend", SecretStr("b" * 32)), ("ops", SecretStr("c" * 32))]
    authenticator = bare_authenticator(keys)
    caller = authenticator.caller(f"internal {key}".encode(), "192.0.2.1")
    assert caller == Caller(kind="internal", client_ip="192.0.2.1", key_name=name)
    with pytest.raises(AccessDenied):
        authenticator.caller(f"internal {name}:{key}".encode(), "192.0.2.1")


@pytest.mark.parametrize("key", ["", "x", INTERNAL_KEYS[0][:-1], INTERNAL_KEYS[0] + "x", " ".join(INTERNAL_KEYS), "é"])
def test_wrong_internal_key_is_denied(harness: AuthenticatorHarness, key: str) -> None:
    with pytest.raises(AccessDenied):
        harness.caller(f"internal {key}")


def test_without_internal_keys_every_internal_key_is_denied() -> None:
    authenticator = bare_authenticator([])
    for header in (b"internal ", b"internal", b"internal x"):
        with pytest.raises(AccessDenied):
            authenticator.caller(header, None)


@pytest.mark.parametrize("header", [b"", b"basic dXNlcjpwYXNz", b"token", b"bearer:x", b"\xff\xfe x", b" bearer x"])
def test_other_schemes_are_an_unknown_token_type(harness: AuthenticatorHarness, header: bytes) -> None:
    with pytest.raises(Unauthorized) as refused:
        harness.caller(header)
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
def test_other_strings_than_a_jwt_are_malformed(harness: AuthenticatorHarness, token: str | bytes) -> None:
    assert harness.reason(token) == "malformed_token"


class TestForgeries:
    def test_no_algorithm(self, harness: AuthenticatorHarness) -> None:
        for algorithm in ("none", "None", "NONE", "", None, 0):
            for signature in ("", _part(b"x" * 64)):
                header = {"alg": algorithm, "typ": "JWT", "kid": "key-1"}
                token = f"{_part(header)}.{_part(harness.signer.claims())}.{signature}"
                assert harness.reason(token) == "invalid_token", (algorithm, signature)

    def test_the_public_key_as_a_shared_secret(self, harness: AuthenticatorHarness) -> None:
        public = harness.signer.private.public_key()
        secrets = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(harness.signer.jwk).encode(),
        ]
        for algorithm, digest in {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.items():
            for secret in secrets:
                signed = f"{_part({'alg': algorithm, 'typ': 'JWT', 'kid': 'key-1'})}.{_part(harness.signer.claims())}"
                token = f"{signed}.{_part(hmac.new(secret, signed.encode(), digest).digest())}"
                assert harness.reason(token) == "invalid_token"

    def test_other_key_with_a_known_kid(self, harness: AuthenticatorHarness) -> None:
        assert harness.reason(Signer.new("key-1").token()) == "invalid_token"

    @pytest.mark.parametrize(
        "kid", ["key-2", "", "../../dev/null", "' OR 1=1 --", "key-1\x00", {"$ne": ""}, ["key-1"], 1]
    )
    def test_unknown_kid(self, harness: AuthenticatorHarness, kid: Any) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": kid}
        assert harness.reason(_es256(harness.signer, header, harness.signer.claims())) in (
            "invalid_token",
            "malformed_token",
        )

    def test_missing_kid(self, harness: AuthenticatorHarness) -> None:
        assert (
            harness.reason(_es256(harness.signer, {"alg": "ES256", "typ": "JWT"}, harness.signer.claims()))
            == "invalid_token"
        )

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
    def test_header_with_a_reference_to_a_key(self, harness: AuthenticatorHarness, extra: dict[str, Any]) -> None:
        """Unknown header fields are refused even with a valid signature."""
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1", **extra}
        assert harness.reason(_es256(harness.signer, header, harness.signer.claims())) == "invalid_token"

    @pytest.mark.parametrize("kind", ["AT+JWT", "dpop+jwt", "deletion+jwt", "", None, 1, ["JWT"]])
    def test_other_token_type_signed_by_nest(self, harness: AuthenticatorHarness, kind: Any) -> None:
        header = {"alg": "ES256", "typ": kind, "kid": "key-1"}
        assert harness.reason(_es256(harness.signer, header, harness.signer.claims())) == "invalid_token"

    @pytest.mark.parametrize("kind", ["application+jwt", "deletion+jwt"])
    def test_application_user_token_with_access_token_claims(self, harness: AuthenticatorHarness, kind: str) -> None:
        assert harness.reason(harness.signer.token(header={"typ": kind})) == "invalid_token"

    def test_duplicate_claim(self, harness: AuthenticatorHarness) -> None:
        """One parser may take the first value, another the last."""
        claims = json.dumps(harness.signer.claims())
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        for duplicate in ('{"exp": 9999999999, ', '{"aud": "client_1", ', '{"a": {"b": 1, "b": 2}, '):
            assert harness.reason(_es256(harness.signer, header, (duplicate + claims[1:]).encode())) == "invalid_token"

    def test_duplicate_header_field(self, harness: AuthenticatorHarness) -> None:
        header = b'{"alg": "none", "alg": "ES256", "typ": "JWT", "kid": "key-1"}'
        assert harness.reason(_es256(harness.signer, header, harness.signer.claims())) == "invalid_token"

    def test_extreme_nesting(self, harness: AuthenticatorHarness) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        deep = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
        assert harness.reason(_es256(harness.signer, header, deep)) == "malformed_token"
        assert harness.reason(_es256(harness.signer, deep, harness.signer.claims())) == "malformed_token"

    @pytest.mark.parametrize("missing", ["exp", "iat", "iss", "sub", "aud", "jti"])
    def test_missing_claim(self, harness: AuthenticatorHarness, missing: str) -> None:
        assert harness.reason(harness.signer.token(**{missing: None})) == "invalid_token"

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
    def test_invalid_claim(self, harness: AuthenticatorHarness, wrong: dict[str, Any]) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        assert harness.reason(_es256(harness.signer, header, harness.signer.claims() | wrong)) in (
            "invalid_token",
            "malformed_token",
        )

    @pytest.mark.parametrize("payload", [b"[]", b"null", b"x", b"{", b"[" * 2000, b'{"a":' * 2000])
    def test_claims_that_are_not_an_object(self, harness: AuthenticatorHarness, payload: bytes) -> None:
        header = {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        assert harness.reason(_es256(harness.signer, header, payload)) in ("invalid_token", "malformed_token")

    def test_changed_character_anywhere(self, harness: AuthenticatorHarness) -> None:
        token = harness.signer.token()
        for position in range(0, len(token), 7):
            changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
            assert harness.reason(changed) in ("invalid_token", "malformed_token")

    def test_algorithm_of_another_curve(self, harness: AuthenticatorHarness) -> None:
        for algorithm in ("ES512", "ES384", "ES256K", "EdDSA", "RS256", "PS256"):
            header = {"alg": algorithm, "typ": "JWT", "kid": "key-1"}
            assert harness.reason(_es256(harness.signer, header, harness.signer.claims())) == "invalid_token"


@pytest.mark.parametrize("version", ["2", "", 1, None])
def test_unknown_version_of_claims_is_refused(harness: AuthenticatorHarness, version: Any) -> None:
    assert harness.reason(harness.signer.token(v=version)) == "invalid_token_version"


def test_cached_token_expires_to_the_second(harness: AuthenticatorHarness) -> None:
    harness.now = 2_000_000_000 - 1
    token = harness.signer.token(iat=int(time.time()), exp=2_000_000_000)
    assert harness.caller(f"bearer {token}").user_id == "user_1"
    harness.now = 2_000_000_000
    assert harness.reason(token) == "token_expired"


def test_cached_token_is_refused_after_its_revocation(harness: AuthenticatorHarness) -> None:
    token, other = harness.signer.token(jti="one"), harness.signer.token(jti="two")
    assert harness.caller(f"bearer {token}").kind == "user"
    harness.revoke("one", harness.now + 3600)
    assert harness.reason(token) == "token_revoked"
    assert harness.caller(f"bearer {other}").kind == "user"


def test_cached_token_is_refused_after_removal_of_its_key(harness: AuthenticatorHarness) -> None:
    token = harness.signer.token()
    assert harness.caller(f"bearer {token}").kind == "user"
    harness.keys.apply(Record(None, b"key-1"))
    assert harness.reason(token) == "invalid_token"


def test_key_rotation_keeps_older_tokens_valid(harness: AuthenticatorHarness) -> None:
    old = harness.signer.token()
    new = Signer.new("key-2")
    harness.publish_key(new)
    assert harness.caller(f"bearer {old}").kind == harness.caller(f"bearer {new.token()}").kind == "user"


def test_client_ip_is_that_of_the_current_request(harness: AuthenticatorHarness) -> None:
    token = harness.signer.token()
    assert harness.caller(f"bearer {token}", "192.0.2.1").client_ip == "192.0.2.1"
    first = harness.caller(f"bearer {token}", "192.0.2.1")
    assert harness.caller(f"bearer {token}", "192.0.2.2").client_ip == "192.0.2.2"
    assert first.client_ip == "192.0.2.1"


def test_token_cache_is_bounded(harness: AuthenticatorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "CACHE_BYTES", 4_000)
    tokens = [harness.signer.token(jti=str(number)) for number in range(5)]
    for token in tokens:
        harness.caller(f"bearer {token}")
    assert len(harness.authenticator._tokens) == 3
    assert harness.caller(f"bearer {tokens[0]}").kind == "user"


def test_refused_token_is_not_cached(harness: AuthenticatorHarness) -> None:
    harness.reason(Signer.new("key-1").token())
    assert not harness.authenticator._tokens


def test_cached_token_takes_less_than_50_microseconds(harness: AuthenticatorHarness) -> None:
    header = f"bearer {harness.signer.token()}".encode()
    harness.authenticator.caller(header, None)
    began = time.process_time()
    for _ in range(10_000):
        harness.authenticator.caller(header, None)
    assert time.process_time() - began < 0.5  # 50 µs each; verifying a signature takes 150 µs


class TestKeys:
    @pytest.mark.parametrize(
        ("private", "algorithm"),
        [
            (ec.generate_private_key(ec.SECP256R1()), "ES256"),
            (ec.generate_private_key(ec.SECP521R1()), "ES512"),
            (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        ],
    )
    def test_each_selectable_algorithm_verifies(
        self, harness: AuthenticatorHarness, private: Any, algorithm: str
    ) -> None:
        kind = OKPAlgorithm if algorithm == "EdDSA" else ECAlgorithm
        jwk = kind.to_jwk(private.public_key(), as_dict=True)
        published = SigningKeyPublished(key="other", kid="other", jwk=jwk)
        harness.keys.apply(Record(published.model_dump_json().encode()))
        token = jwt.encode(harness.signer.claims(), private, algorithm, {"kid": "other"})
        assert harness.caller(f"bearer {token}").kind == "user"
        published_jwk = json.loads(harness.keys.jwks)["keys"][-1]
        assert (published_jwk["alg"], published_jwk["use"], published_jwk["kid"]) == (algorithm, "sig", "other")

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
    def test_invalid_or_private_key_is_ignored(self, harness: AuthenticatorHarness, change: dict[str, str]) -> None:
        signer = Signer.new("key-2")
        published = SigningKeyPublished(key="key-2", kid="key-2", jwk=signer.jwk | change)
        harness.keys.apply(Record(published.model_dump_json().encode()))
        assert harness.keys.find("key-2") is None
        assert b"key-2" not in harness.keys.jwks

    @pytest.mark.parametrize("value", [b"", b"x", b"[]", b"{}", b"\xff", b"[" * 5000])
    def test_malformed_records_are_ignored(self, harness: AuthenticatorHarness, value: bytes) -> None:
        harness.keys.apply(Record(value))
        harness.clients.apply(Record(value))
        harness.revocations.apply(Record(value))
        assert harness.caller(f"bearer {harness.signer.token()}").kind == "user"


class TestClients:
    def test_token_of_an_unknown_client_is_refused(self, harness: AuthenticatorHarness) -> None:
        assert harness.reason(harness.signer.token(aud="unknown-client")) == "invalid_token"

    def test_token_is_valid_only_while_its_client_is_enabled(self, harness: AuthenticatorHarness) -> None:
        token = harness.signer.token()
        assert harness.caller(f"bearer {token}").kind == "user"
        harness.publish_client("client_1", disabled=True)
        assert harness.reason(token) == "invalid_token"
        harness.publish_client("client_1")
        assert harness.caller(f"bearer {token}").kind == "user"
        harness.clients.apply(Record(None, b"client_1"))
        harness.publish_client("client_2")
        assert harness.reason(token) == "invalid_token"

    def test_gateway_without_clients_is_unavailable_instead_of_refusing(self, harness: AuthenticatorHarness) -> None:
        token = harness.signer.token()
        harness.clients.apply(Record(None, b"client_1"))
        with pytest.raises(Unavailable):
            harness.caller(f"bearer {token}")


class TestRevocations:
    def test_are_dropped_after_the_expiry_of_their_token(self, harness: AuthenticatorHarness) -> None:
        harness.revoke("one", harness.now + 10)
        harness.revoke("two", harness.now + 20)
        assert len(harness.revocations) == 2
        harness.now += 15
        harness.revoke("three", harness.now + 10)
        assert "one" not in harness.revocations
        assert len(harness.revocations) == 2

    def test_of_expired_tokens_are_not_stored(self, harness: AuthenticatorHarness) -> None:
        harness.revoke("one", harness.now - 1)
        assert len(harness.revocations) == 0

    def test_duplicates_are_stored_once(self, harness: AuthenticatorHarness) -> None:
        for _ in range(2):
            harness.revoke("one", harness.now + 10)
        assert len(harness.revocations._by_expiry) == 1


async def test_revoked_token_is_refused_within_a_second(stack: GatewayStack) -> None:
    token = stack.signer.token()
    headers = {"authorization": f"bearer {token}"}
    call = {"json": {"user_id": "user_1"}, "headers": headers}
    assert (await stack.http.post("/1/2021-10-06/get_user", **call)).status_code == 204
    await stack.revoke(token)
    await asyncio.sleep(1.0)  # The README promises one second.
    refused = await stack.http.post("/1/2021-10-06/get_user", **call)
    assert refused.status_code == 401
    assert refused.json()["code"] == "unauthorized"
    assert refused.json()["reasons"] == [{"code": "token_revoked"}]


async def test_key_published_or_removed_at_runtime_takes_effect(stack: GatewayStack) -> None:
    signer = Signer.new("key-at-runtime")
    call = {"json": {"user_id": "user_1"}, "headers": {"authorization": f"bearer {signer.token()}"}}
    assert (await stack.http.post("/1/2021-10-06/get_user", **call)).status_code == 401
    await stack.publish(signer.published)
    await eventually(lambda: _answers(stack, call, 204))
    jwks = (await stack.http.get("/.well-known/jwks.json")).json()
    assert signer.jwk in jwks["keys"]
    await stack.services.producer.send_record("auth.keys", None, [], key=signer.kid.encode())
    await eventually(lambda: _answers(stack, call, 401))


async def _answers(stack: GatewayStack, call: dict[str, Any], status: int) -> bool:
    return (await stack.http.post("/1/2021-10-06/get_user", **call)).status_code == status


async def test_tokens_of_a_disabled_client_are_refused_within_a_second(stack: GatewayStack) -> None:
    await stack.publish(client("client_2"))
    headers = {"authorization": f"bearer {stack.signer.token(aud='client_2')}"}
    call = {"json": {"user_id": "user_1"}, "headers": headers}
    await eventually(lambda: _answers(stack, call, 204))
    await stack.publish(client("client_2", disabled=True))
    await asyncio.sleep(1.0)  # The README promises one second.
    refused = await stack.http.post("/1/2021-10-06/get_user", **call)
    assert (refused.status_code, refused.json()["reasons"]) == (401, [{"code": "invalid_token"}])
