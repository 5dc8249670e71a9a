"""Rate limits under a flood of requests, with the default limits: what passes, and who else is affected."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import httpx
import pytest

from services.embedded.demo import CLIENT_ID
from tests.end_to_end.flows import Mongo, database
from tests.stack import API, Login, RunNest, Stack, code_of

CONNECTIONS: Final = 20
NETWORKS: Final = 50
PROXY: Final = "127.0.0.1"
STRANGER: Final = "127.0.0.2"
"""Another address of this machine, which is not a trusted proxy."""
CODE: Final = re.compile(r"\b\d{6}\b")
GUESSES: Final = [100, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
async def limited(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest with all rate limits, two gateways, and a trusted proxy in front of them."""
    settings = {
        # Per hour, so that the duration of a test does not matter.
        "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "5/1h",
        "NEST_LIMIT_MAGIC_LINKS_PER_CLIENT": "1000/1m, 20000/1h",
        "NEST_LIMIT_LIFT_LOOPBACK": "false",
        "NEST_TRUSTED_PROXIES": f"{PROXY}/32",
    }
    async with run_nest(gateways=2, settings=settings) as stack:
        yield stack


def ip(number: int) -> str:
    """Return an IP address in a network of its own."""
    return f"203.{number // 250}.{number % 250}.7"


async def flood(nest: Stack, path: str, requests: Iterable[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    """Send requests over 20 connections to both gateways, each from the IP address that the proxy forwards."""
    rest = iter(list(requests))
    responses: list[httpx.Response] = []

    async def attack(http: httpx.AsyncClient) -> None:
        for forwarded, body in rest:
            responses.append(await http.post(path, json=body, headers={"x-forwarded-for": forwarded}))

    async with (
        httpx.AsyncClient(base_url=nest.urls[0], timeout=30) as one,
        httpx.AsyncClient(base_url=nest.urls[1], timeout=30) as two,
    ):
        await asyncio.gather(*(attack((one, two)[number % 2]) for number in range(CONNECTIONS)))
    return responses


def codes_of(responses: list[httpx.Response]) -> Counter[str]:
    """Count error codes, ``done`` for a success; assert that each throttled response has a retry time."""
    for response in responses:
        if response.status_code == 429:
            assert response.json()["code"] == "throttled"
            assert int(response.headers["retry-after"]) == response.json()["meta"]["retry_after"] >= 1
    return Counter("done" if response.is_success else response.json()["code"] for response in responses)


async def request_link(nest: Stack, login: Login, forwarded: str) -> str:
    """Request a magic link from an IP address and return its code."""
    already = len(nest.inbox.arrivals(login.email))
    response = await nest.call("send_magic_link", login.request(), x_forwarded_for=forwarded)
    assert response.status_code == 204, response.text
    return code_of(await nest.mail(login.email, count=already + 1), login)


async def request_text(nest: Stack, number: str, forwarded: str) -> tuple[str, str]:
    """Request a text from an IP address and return its nonce and its code."""
    already = len(nest.inbox.arrivals(number))
    response = await nest.http.post("/init", json={"phone_number": number}, headers={"x-forwarded-for": forwarded})
    assert response.status_code == 200, response.text
    text = await nest.mail(number, count=already + 1)
    found = CODE.search(text.text)
    assert found is not None
    return response.text, found[0]


def verification(code: str, nonce: str) -> dict[str, Any]:
    return {"code": code, "nonce": nonce, "clientid": CLIENT_ID}


@pytest.mark.parametrize("requests", [200, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_flooded_address_gets_five_links_and_affects_nobody_else(limited: Stack, requests: int) -> None:
    login = Login(f"flooded{requests}@example.com")
    bodies = [(ip(number % NETWORKS), login.request()) for number in range(requests)]

    responses = await flood(limited, f"{API}/send_magic_link", bodies)

    assert codes_of(responses) == {"done": 5, "throttled": requests - 5}
    # Another address on one of the same networks is not throttled. Its mail is sent after all mails of the flood.
    other = Login(f"neighbour{requests}@example.com")
    redeemed = await limited.call(
        "authenticate_user", other.redemption(await request_link(limited, other, ip(0))), x_forwarded_for=ip(0)
    )
    assert redeemed.status_code == 200
    await limited.mail(login.email, count=5)
    assert len(limited.inbox.arrivals(login.email)) == 5


async def test_one_network_gets_thirty_links_whatever_it_forwards(limited: Stack) -> None:
    # The proxy appends the last address; a client can write any others before it.
    requests = [
        (f"{ip(200 + number)}, 198.51.100.{number}", Login(f"forwarded{number}@example.com").request())
        for number in range(40)
    ]
    responses = await flood(limited, f"{API}/send_magic_link", requests)
    assert codes_of(responses) == {"done": 30, "throttled": 10}


async def test_only_the_proxy_can_forward_an_address(limited: Stack) -> None:
    transport = httpx.AsyncHTTPTransport(local_address=STRANGER)
    async with httpx.AsyncClient(base_url=limited.urls[0], transport=transport, timeout=30) as http:
        responses = [
            await http.post(
                f"{API}/send_magic_link",
                json=Login(f"forged{number}@example.com").request(),
                headers={"x-forwarded-for": ip(300 + number)},
            )
            for number in range(32)
        ]
    assert codes_of(responses) == {"done": 30, "throttled": 2}


@pytest.mark.parametrize(("guesses", "networks"), [(150, 2), pytest.param(10_000, 50, marks=pytest.mark.slow)])
async def test_guesses_at_a_code_are_throttled_and_its_owner_logs_in(
    limited: Stack, guesses: int, networks: int
) -> None:
    login = Login(f"guessed{guesses}@example.com")
    code = await request_link(limited, login, ip(400))
    id, _, _ = code.partition(".")  # noqa: A001 -- the field's name
    requests = [(ip(400 + n % networks), login.redemption(f"{id}.{n:064x}")) for n in range(guesses)]

    began = time.monotonic()
    responses = await flood(limited, f"{API}/authenticate_user", requests)
    # The limit is 60 in five minutes; a flood on a slow machine may take longer.
    windows = 1 + math.ceil((time.monotonic() - began) / 300)

    codes = codes_of(responses)
    assert set(codes) == {"token_not_found", "throttled"}
    assert codes["token_not_found"] <= 60 * networks * windows
    redeemed = await limited.call("authenticate_user", login.redemption(code), x_forwarded_for=ip(400))
    assert redeemed.status_code == 200


@pytest.mark.parametrize("guesses", GUESSES)
async def test_five_guesses_at_a_verifier_void_the_link_but_not_the_next(limited: Stack, guesses: int) -> None:
    login = Login(f"verified{guesses}@example.com")
    code = await request_link(limited, login, ip(500))
    requests = [(ip(500 + n % NETWORKS), login.redemption(code, code_verifier=f"{n:043d}")) for n in range(guesses)]

    responses = await flood(limited, f"{API}/authenticate_user", requests)

    codes = codes_of(responses)
    assert codes["incorrect_code_verifier"] == 5
    assert set(codes) <= {"incorrect_code_verifier", "authorization_not_found", "throttled"}
    # From a network that has guessed nothing yet: the others have used up their wrong codes.
    late = await limited.call("authenticate_user", login.redemption(code), x_forwarded_for=ip(560))
    assert late.json()["code"] == "authorization_not_found"
    again = Login(login.email)
    fresh = again.redemption(await request_link(limited, again, ip(500)))
    redeemed = await limited.call("authenticate_user", fresh, x_forwarded_for=ip(500))
    assert redeemed.status_code == 200


@pytest.mark.parametrize("guesses", GUESSES)
async def test_five_guesses_at_a_texted_code_void_it_but_not_the_next(
    limited: Stack, mongo_client: Mongo, guesses: int
) -> None:
    number = f"+4915123{guesses:06d}"
    nonce, right = await request_text(limited, number, ip(600))
    wrong = [guess for guess in (f"{guess:06d}" for guess in range(guesses + 1)) if guess != right][:guesses]
    requests = [(ip(600 + n % NETWORKS), verification(guess, nonce)) for n, guess in enumerate(wrong)]

    responses = await flood(limited, "/verify", requests)

    assert set(codes_of(responses)) <= {"phone_code_not_found", "throttled"}
    rows = database(limited, mongo_client, "auth")["phone_codes"]
    assert [row["wrongCodes"] for row in rows.find({"phoneNumber": number})] == [5]
    late = await limited.http.post("/verify", json=verification(right, nonce))
    assert codes_of([late]) == {"phone_code_not_found": 1}
    nonce, right = await request_text(limited, number, ip(600))
    assert (await limited.http.post("/verify", json=verification(right, nonce))).status_code == 200


@pytest.mark.parametrize("requests", [100, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_flooded_number_gets_three_texts(limited: Stack, requests: int) -> None:
    number = f"+4915123{900_000 + requests}"
    responses = await flood(limited, "/init", [(ip(700 + n), {"phone_number": number}) for n in range(requests)])
    assert codes_of(responses) == {"done": 3, "throttled": requests - 3}
    await limited.mail(number, count=3)
    assert len(limited.inbox.arrivals(number)) == 3


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/verify", {"code": "123456", "nonce": "0" * 32}, 404),
        (f"{API}/authenticate_user", {"client_id": CLIENT_ID, "grant_type": "x" * 64}, 400),
    ],
    ids=["unknown nonces", "unknown grant types"],
)
async def test_flood_of_refused_calls_stores_the_budget_of_its_network(
    limited: Stack, mongo_client: Mongo, path: str, body: dict[str, Any], status: int
) -> None:
    auth = database(limited, mongo_client, "auth")
    network = f"203.0.{100 + status % 100}"

    def stored() -> tuple[int, int, int]:
        size = sum(auth.command("collStats", name)["size"] for name in ("inbox", "audit"))
        return auth["inbox"].count_documents({}), auth["audit"].count_documents({}), size

    ready = asyncio.Semaphore(32)

    async def call(number: int) -> httpx.Response:
        async with ready:
            headers = {"x-forwarded-for": f"{network}.{number % 250 + 1}"}
            own = {"nonce": f"{number:032x}"} if "nonce" in body else {}
            return await limited.http.post(path, json={**body, **own}, headers=headers)

    before = stored()
    responses = await asyncio.gather(*(call(number) for number in range(600)))
    statuses = Counter(response.status_code for response in responses)
    # Two instances of a counter may differ for a moment.
    assert statuses.keys() == {status, 429}
    assert 100 <= statuses[status] <= 110
    assert all(int(each.headers["retry-after"]) > 0 for each in responses if each.status_code == 429)
    rows, entries, size = (after - earlier for after, earlier in zip(stored(), before, strict=True))
    assert rows <= 110
    assert entries <= 110
    assert size < 165_000
    assert (await limited.http.post(path, json=body, headers={"x-forwarded-for": "192.0.2.77"})).status_code == status


async def test_flood_of_long_texts_stores_nothing(limited: Stack, mongo_client: Mongo) -> None:
    auth = database(limited, mongo_client, "auth")
    before = auth["inbox"].count_documents({})
    body = {"client_id": CLIENT_ID, "grant_type": "x" * 60_000}
    for _ in range(100):
        response = await limited.http.post(f"{API}/authenticate_user", json=body)
        assert response.status_code == 422
        assert "xxx" not in response.text
    assert auth["inbox"].count_documents({}) == before
