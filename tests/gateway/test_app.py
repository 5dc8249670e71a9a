"""The gateway as a whole: its other routes, its settings, and apps in front of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.app import create
from services.gateway.errors import STATUS
from services.gateway.methods import METHODS, PATHS
from services.gateway.settings import GatewaySettings
from shared.errors import Kind
from shared.settings import SettingsError, load
from tests.gateway.conftest import ISSUER, World
from tests.stack import eventually

ENVIRONMENT = {
    "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "NEST_SEALING_KEYS": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "NEST_ISSUER": "https://api.example.com",
    "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_1",
    "NEST_STRIPE_LIVEMODE": "true",
}


async def test_verifiers_find_keys_and_issuer(world: World) -> None:
    configuration = await world.http.get("/.well-known/openid-configuration")
    assert configuration.json()["issuer"] == ISSUER
    assert configuration.json()["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    assert configuration.json()["id_token_signing_alg_values_supported"] == ["ES256", "ES512", "EdDSA"]
    jwks = await world.http.get("/.well-known/jwks.json")
    assert world.signer.jwk in jwks.json()["keys"]
    assert not any("d" in key for key in jwks.json()["keys"])
    assert jwks.headers["cache-control"] == configuration.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/.well-known/openid-configuration"])
async def test_verifiers_that_have_it_already_are_told_so(world: World, path: str) -> None:
    first = await world.http.get(path)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await world.http.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "public, max-age=300")
    assert (await world.http.get(path, headers={"if-none-match": '"other"'})).content == first.content


async def test_health_tells_what_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    well = await world.http.get("/healthz")
    assert (well.status_code, well.json()) == (200, {"status": "ok"})
    monkeypatch.setattr(world.gateway._rpc_client._reader, "following", False)
    ill = await world.http.get("/healthz")
    assert (ill.status_code, ill.json()["reasons"]) == (503, ["replies are not received"])


async def test_metrics_are_on_a_port_of_their_own(world: World, make_settings: Callable[..., GatewaySettings]) -> None:
    assert (await world.http.get("/metrics")).status_code == 404
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = make_settings(topic_prefix=world.settings.topic_prefix, health_port=port)
    async with create(settings) as gateway, httpx.AsyncClient() as http:
        await http.post(f"http://127.0.0.1:{gateway.port}/1/2021-10-06/list_news_items", json={"client_id": "c"})
        metrics = await http.get(f"http://127.0.0.1:{port}/metrics")
    assert 'nest_gateway_call_seconds_count{method="list_news_items",status="204",version="2021-10-06"}' in metrics.text


async def test_an_app_may_stand_before_it(world: World, make_settings: Callable[..., GatewaySettings]) -> None:
    def middleware(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            answering = PlainTextResponse("page") if scope["path"] == "/" else inner
            await answering(scope, receive, send)

        return app

    settings = make_settings(topic_prefix=world.settings.topic_prefix)
    async with create(settings, middleware=middleware) as gateway, httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{gateway.port}/")).text == "page"
        assert (await http.get(f"http://127.0.0.1:{gateway.port}/healthz")).status_code == 200


async def test_a_port_that_is_taken_stops_the_start_and_leaves_nothing_running(
    world: World, make_settings: Callable[..., GatewaySettings]
) -> None:
    before = len(asyncio.all_tasks())
    with pytest.raises(OSError, match="in use"):
        async with create(make_settings(topic_prefix=world.settings.topic_prefix, port=world.gateway.port)):
            pass
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


def test_every_kind_of_refusal_has_a_status() -> None:
    assert set(STATUS) == set(Kind)


def test_every_method_is_on_its_path() -> None:
    assert sum(map(len, METHODS.values())) == len(PATHS)
    for path, method in PATHS.items():
        assert path == f"/1/{method.version}/{method.name}"


class TestSettings:
    @staticmethod
    def load(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> GatewaySettings:
        for name, value in {**ENVIRONMENT, **changed}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load(GatewaySettings)

    def test_what_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = self.load(monkeypatch)
        assert settings.internal == ()
        assert settings.webhook_secrets == ("whsec_1",)

    @pytest.mark.parametrize("name", [*ENVIRONMENT])
    def test_what_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        with pytest.raises(SettingsError, match=f"{name}: is not set"):
            self.load(monkeypatch, **{name: None})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("NEST_STRIPE_WEBHOOK_SECRETS", ""),
            ("NEST_STRIPE_WEBHOOK_SECRETS", " , "),
            ("NEST_INTERNAL_KEYS", "short"),
            ("NEST_INTERNAL_KEYS", "long-enough-to-be-one,short"),
            ("NEST_CORS_ORIGINS", "*"),
            ("NEST_CORS_ORIGINS", "https://app.example.com/"),
            ("NEST_CORS_ORIGINS", "app.example.com"),
            ("NEST_TRUSTED_PROXIES", "10.0.0.1/8"),
            ("NEST_TRUSTED_PROXIES", "everybody"),
            ("NEST_ISSUER", "http://api.example.com"),
            ("NEST_ISSUER", "https://api.example.com/"),
            ("NEST_ISSUER", "api.example.com"),
            ("NEST_PORT", "70000"),
            ("NEST_REPLY_SECONDS", "0"),
        ],
    )
    def test_what_is_dangerous_or_wrong_is_named_and_never_shown(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        with pytest.raises(SettingsError) as refused:
            self.load(monkeypatch, **{name: value})
        assert name in str(refused.value)
        assert "short" not in str(refused.value)

    def test_several_may_be_given_with_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = self.load(
            monkeypatch,
            NEST_INTERNAL_KEYS="one-long-internal-key, another-internal-key",
            NEST_STRIPE_WEBHOOK_SECRETS="whsec_1,whsec_2",
            NEST_CORS_ORIGINS="https://a.example, http://localhost:3000",
            NEST_TRUSTED_PROXIES="10.0.0.0/8,::1/128",
        )
        assert settings.internal == ("one-long-internal-key", "another-internal-key")
        assert settings.webhook_secrets == ("whsec_1", "whsec_2")
        assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
        assert [str(network) for network in settings.proxies] == ["10.0.0.0/8", "::1/128"]

    def test_secrets_are_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = self.load(monkeypatch, NEST_INTERNAL_KEYS="one-long-internal-key")
        shown: Any = repr(settings)
        assert "one-long" not in shown
        assert "whsec" not in shown
