"""HTTP client of webhooks: what counts as a success, and what it never connects to."""

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from services.mailer.webhooks.destinations import Destinations
from services.mailer.webhooks.http_client import FAILURES_BEFORE_PAUSE, PAUSE_SECONDS, Sent, WebhookClient
from services.mailer.webhooks.signatures import new_secret
from tests.mailer.webhook_receiver import Receiver

AT = datetime(2026, 11, 29, 6, 5, tzinfo=UTC)


@pytest.fixture
async def client() -> AsyncIterator[WebhookClient]:
    """A client that may post to loopback."""
    client = WebhookClient(Destinations(private=True), timeout=30)
    yield client
    await client.close()


async def post(client: WebhookClient, url: str, *, endpoint: str = "endpoint_1") -> Sent:
    return await client.post(endpoint, url, "webhookevent_1", b'{"type":"a.b"}', [new_secret()], at=AT)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (204, None),
        (299, None),
        (301, "redirect"),
        (307, "redirect"),
        (304, "redirect"),
        (400, "status"),
        (410, "status"),
        (429, "status"),
        (500, "status"),
    ],
)
async def test_only_2xx_is_a_success(client: WebhookClient, receiver: Receiver, status: int, error: str) -> None:
    receiver.answers = [(status, {"location": receiver.url})]
    sent = await post(client, receiver.url)
    assert (sent.attempt.status, sent.attempt.error, sent.attempt.at) == (status, error, AT)
    assert len(receiver.requests) == 1


async def test_requests_have_no_cookies_and_credentials(
    client: WebhookClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    receiver.answers = [(204, {"set-cookie": "a=b"})]
    await post(client, receiver.url)
    await post(client, receiver.url)
    names = {"host", "user-agent", "accept", "accept-encoding", "content-length", "content-type"}
    names |= {"webhook-id", "webhook-timestamp", "webhook-signature"}
    assert [each.keys() for each in receiver.requests] == [names, names]
    assert receiver.requests[0]["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("value", "pause"),
    [("7", 7.0), ("0", 0.0), ("99999999999999", 10.0**8), ("-1", None), ("soon", None), ("", None), ("1.5", None)],
)
async def test_retry_after_in_seconds(client: WebhookClient, receiver: Receiver, value: str, pause: float) -> None:
    receiver.answers = [(503, {"retry-after": value})]
    sent = await post(client, receiver.url)
    assert sent.retry_after == (None if pause is None else timedelta(seconds=pause))


async def test_retry_after_as_a_date(client: WebhookClient, receiver: Receiver) -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    receiver.answers = [(503, {"retry-after": at.strftime("%a, %d %b %Y %H:%M:%S GMT")})]
    pause = (await post(client, receiver.url)).retry_after
    assert pause is not None
    assert timedelta(seconds=80) < pause <= timedelta(seconds=100)


async def test_a_receiver_that_hangs_times_out(receiver: Receiver) -> None:
    receiver.hangs = True
    client = WebhookClient(Destinations(private=True), timeout=0.1)
    sent = await post(client, receiver.url)
    assert (sent.attempt.status, sent.attempt.error) == (None, "timeout")
    await client.close()


async def test_a_refused_connection_is_a_failure(client: WebhookClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        sent = await post(client, f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert sent.attempt.error == "connection"


async def test_https_to_a_server_without_tls_is_a_failure(client: WebhookClient, receiver: Receiver) -> None:
    sent = await post(client, receiver.url.replace("http:", "https:"))
    assert sent.attempt.error in ("tls", "connection")
    assert receiver.requests == []


class ChangingResolver(AbstractResolver):
    """A resolver with a new answer for each request, as an attacker's name server has."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
            for each in self.answers.pop(0)
        ]

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("10.0.0.1", "127.0.0.1"), ("169.254.169.254",)])
async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(
    receiver: Receiver, addresses: tuple[str, ...]
) -> None:
    # The URL was checked long ago, when the name had a public address.
    client = WebhookClient(Destinations(private=False), timeout=30, resolver=ChangingResolver(addresses))
    sent = await post(client, f"https://rebinding.example:{receiver.port}/")
    assert (sent.attempt.status, sent.attempt.error) == (None, "address_refused")
    assert receiver.requests == []
    await client.close()


async def test_connections_to_private_addresses_are_not_used_again(receiver: Receiver) -> None:
    resolver = ChangingResolver(("127.0.0.1",), ("127.0.0.1",))
    client = WebhookClient(Destinations(private=False), timeout=30, resolver=resolver)
    for _ in range(2):
        sent = await post(client, f"https://rebinding.example:{receiver.port}/")
        assert sent.attempt.error == "address_refused"
    assert receiver.requests == []
    await client.close()


async def test_a_url_from_before_a_change_of_the_setting_is_refused() -> None:
    client = WebhookClient(Destinations(private=False), timeout=30)
    assert (await post(client, "http://127.0.0.1:1/")).attempt.error == "address_refused"
    await client.close()


async def test_an_unknown_name_is_a_failure_of_dns() -> None:
    class Unknown(ChangingResolver):
        async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
            raise OSError(None, "unknown")

    client = WebhookClient(Destinations(private=False), timeout=30, resolver=Unknown())
    assert (await post(client, "https://unknown.example/")).attempt.error == "dns"
    await client.close()


async def test_an_endpoint_that_fails_repeatedly_gets_no_requests_for_a_while(receiver: Receiver) -> None:
    now = 0.0
    client = WebhookClient(Destinations(private=True), timeout=30, clock=lambda: now)
    receiver.answers = [(500, {})] * FAILURES_BEFORE_PAUSE
    for _ in range(FAILURES_BEFORE_PAUSE):
        await post(client, receiver.url)
    assert (await post(client, receiver.url)).attempt.error == "paused"
    assert (await post(client, receiver.url, endpoint="endpoint_2")).attempt.succeeded
    assert len(receiver.requests) == FAILURES_BEFORE_PAUSE + 1
    now = PAUSE_SECONDS
    assert (await post(client, receiver.url)).attempt.succeeded
    await client.close()
