"""A gateway on a real Kafka with stand-ins for the services behind it, reset before each test."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from services.gateway.app import Gateway, create
from services.gateway.settings import GatewaySettings
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.outside_work import publish_outside_work
from shared.messages import Event
from shared.messages.auth.clients import ClientAnnounced
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.sealing import Sealer
from tests.gateway.fake_services import FakeServices

ISSUER = "http://nest.test"
INTERNAL_KEYS = ("the-previous-internal-key", "the-current-internal-key")
WEBHOOK_SECRETS = ("whsec_previous", "whsec_current")
MAIL_SECRETS = ("the-previous-mail-secret", "the-current-mail-secret")
ORIGIN = "https://app.example.com"
LINK = {
    "client_id": "client_1",
    "redirect_uri": "https://app.example.com/callback",
    "state": "s",
    "code_challenge_method": "S256",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "identifier_type": "email",
    "identifier_value": "Jane@Example.com",
}
"""Valid body of ``send_magic_link``."""


@dataclass
class Signer:
    """Signs access tokens as auth does."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, kid: str) -> Signer:
        return cls(kid, ec.generate_private_key(ec.SECP256R1()))

    @property
    def jwk(self) -> dict[str, str]:
        jwk: dict[str, str] = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.kid, "alg": "ES256", "use": "sig"}

    @property
    def published(self) -> SigningKeyPublished:
        return SigningKeyPublished(key=self.kid, kid=self.kid, jwk=self.jwk)

    def claims(self, user_id: str = "user_1", **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"v": "1", "jti": f"acstok_{time.time_ns()}", "iss": ISSUER, "sub": user_id, "aud": "client_1"}
        return {**claims, "iat": now, "exp": now + 3600, **changed}

    def token(self, user_id: str = "user_1", header: dict[str, Any] | None = None, **changed: Any) -> str:
        claims = {name: value for name, value in self.claims(user_id, **changed).items() if value is not None}
        return jwt.encode(claims, self.private, "ES256", {"kid": self.kid, **(header or {})})


def client(client_id: str, *, disabled: bool = False) -> ClientAnnounced:
    """Event that auth publishes for a client."""
    return ClientAnnounced(key=client_id, client_id=client_id, name="An app", disabled=disabled)


@dataclass
class GatewayStack:
    """A gateway and everything around it."""

    gateway: Gateway
    settings: GatewaySettings
    services: FakeServices
    signer: Signer
    http: httpx.AsyncClient

    async def publish(self, event: Event) -> None:
        await publish_outside_work(self.services.producer, self.services.sealer, event)

    async def revoke(self, token: str) -> None:
        claims = jwt.decode(token, options={"verify_signature": False})
        await self.publish(AccessTokenRevoked(token_id=claims["jti"], expires_at=claims["exp"]))

    def bearer(self, user_id: str = "user_1") -> dict[str, str]:
        return {"authorization": f"bearer {self.signer.token(user_id)}"}

    @property
    def internal(self) -> dict[str, str]:
        return {"authorization": f"internal {INTERNAL_KEYS[-1]}"}


@pytest.fixture(scope="session")
def make_settings(kafka_bootstrap: str) -> Callable[..., GatewaySettings]:
    """Factory of settings."""

    def make(**changed: Any) -> GatewaySettings:
        defaults: dict[str, Any] = {
            "kafka_bootstrap": kafka_bootstrap,
            "environment": "test",
            "sealing_keys": f"k1:{base64.b64encode(bytes(32)).decode()}",
            "port": 0,
            "issuer": ISSUER,
            "internal_keys": ",".join(INTERNAL_KEYS),
            "stripe_webhook_secrets": ",".join(WEBHOOK_SECRETS),
            "stripe_livemode": False,
            "mail_webhook_secrets": ",".join(MAIL_SECRETS),
            "cors_origins": ORIGIN,
            "failed_authentications_per_minute": 100_000,
            "reply_seconds": 10.0,
            "drain_seconds": 2.0,
            "console_open": True,
        }
        return GatewaySettings(**{**defaults, **changed})

    return make


@pytest.fixture(scope="package")
async def shared_stack(
    make_settings: Callable[..., GatewaySettings], unique: Callable[[], str], kafka_admin: AIOKafkaAdminClient
) -> AsyncIterator[GatewayStack]:
    settings = make_settings(topic_prefix=unique())
    bootstrap, prefix = settings.kafka_bootstrap, settings.topic_prefix
    created = await topics.apply(KafkaConnection(bootstrap), prefix=prefix, max_partitions=2)
    services = FakeServices(bootstrap, prefix, Sealer(settings.master_keys()))
    await services.start()
    signer = Signer.new("key-1")
    await publish_outside_work(services.producer, services.sealer, signer.published)
    await publish_outside_work(services.producer, services.sealer, client("client_1"))
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0) as http,
    ):
        yield GatewayStack(gateway, settings, services, signer, http)
    await services.stop()
    await kafka_admin.delete_topics(created)


@pytest.fixture
def stack(shared_stack: GatewayStack) -> Iterator[GatewayStack]:
    """The shared gateway, with reset stand-ins."""
    shared_stack.services.reset()
    yield shared_stack
    assert shared_stack.gateway._rpc_client.waiting == 0
