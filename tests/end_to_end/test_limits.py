"""What a flood may do, and what it may not do to others. The limits are those that hold by default."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from services.embedded.demo import CLIENT_ID
from tests.stack import Login, Stack, code_of, running_stack

AT_ONCE = 20
ADDRESSES = 50
PROXY = "127.0.0.1"
STRANGER = "127.0.0.2"
"""This machine as well, and no trusted proxy."""
CODE = re.compile(r"\b\d{6}\b")


@pytest.fixture(scope="session")
async def guarded(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A Nest with every limit, two gateways, and a proxy before them that it trusts."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("guarded"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        gateways=2,
        settings={
            # An hour, so that it makes no difference how long a test takes.
            "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "5/1h",
            "NEST_LIMIT_MAGIC_LINKS_PER_CLIENT": "1000/1m, 20000/1h",
            "NEST_LIMIT_LIFT_LOOPBACK": "false",
            "NEST_TRUSTED_PROXIES": f"{PROXY}/32",
        },
    ) as stack:
        yield stack


def ip(number: int) -> str:
    """An address in a prefix of its own."""
    return f"203.{number // 250}.{number % 250}.7"


async def flood(stack: Stack, path: str, bodies: Iterable[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    """Post all of it, 20 at a time, to both gateways; each body comes from an address, as the proxy says."""
    rest = iter(list(bodies))
    answers: list[httpx.Response] = []

    async def attack(http: httpx.AsyncClient) -> None:
        for came_from, body in rest:
            answers.append(await http.post(path, json=body, headers={"x-forwarded-for": came_from}))

    async with (
        httpx.AsyncClient(base_url=stack.urls[0], timeout=30) as one,
        httpx.AsyncClient(base_url=stack.urls[1], timeout=30) as two,
    ):
        await asyncio.gather(*(attack((one, two)[number % 2]) for number in range(AT_ONCE)))
    return answers


def said(answers: list[httpx.Response]) -> Counter[str]:
    """The answers' codes; ``done`` where there was nothing to refuse. Whoever is throttled is told how long."""
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["code"] == "throttled"
            assert int(answer.headers["retry-after"]) == answer.json()["meta"]["retry_after"] >= 1
    return Counter("done" if answer.is_success else answer.json()["code"] for answer in answers)


async def ordered(stack: Stack, login: Login, came_from: str) -> str:
    """As ``Stack.code``, from an address."""
    already = len(stack.inbox.arrivals(login.email))
    answer = await stack.call("send_magic_link", login.order(), x_forwarded_for=came_from)
    assert answer.status_code == 204, answer.text
    return code_of(await stack.mail(login.email, count=already + 1), login)


async def texted(stack: Stack, number: str, came_from: str) -> tuple[str, str]:
    """A nonce and the code that was texted for it."""
    already = len(stack.inbox.arrivals(number))
    answer = await stack.http.post("/init", json={"phone_number": number}, headers={"x-forwarded-for": came_from})
    assert answer.status_code == 200, answer.text
    text = await stack.mail(number, count=already + 1)
    found = CODE.search(text.text)
    assert found is not None
    return answer.text, found[0]


async def test_a_thousand_orders_for_one_address_mail_as_many_links_as_are_allowed(guarded: Stack) -> None:
    login = Login("bombed@example.com")
    bodies = [(ip(number % ADDRESSES), login.order()) for number in range(1_000)]

    answers = await flood(guarded, "/1/2021-10-06/send_magic_link", bodies)

    assert said(answers) == {"done": 5, "throttled": 995}
    # Nobody else is held up, not even from the same networks, and no more mails come afterwards.
    other = Login("neighbour@example.com")
    redeemed = await guarded.call(
        "authenticate_user", other.redemption(await ordered(guarded, other, ip(0))), x_forwarded_for=ip(0)
    )
    assert redeemed.status_code == 200
    await guarded.mail(login.email, count=5)
    assert len(guarded.inbox.arrivals(login.email)) == 5


async def test_one_network_orders_thirty_links_whatever_it_says_about_itself(guarded: Stack) -> None:
    orders = [Login(f"listed{number}@example.com").order() for number in range(60)]
    # The proxy adds the last one; what stands before it anybody may have written.
    answers = await flood(
        guarded,
        "/1/2021-10-06/send_magic_link",
        [(f"{ip(200 + n)}, 198.51.100.{n}", order) for n, order in enumerate(orders)],
    )
    assert said(answers) == {"done": 30, "throttled": 30}


async def test_a_forwarded_address_is_believed_of_the_proxy_alone(guarded: Stack) -> None:
    transport = httpx.AsyncHTTPTransport(local_address=STRANGER)
    async with httpx.AsyncClient(base_url=guarded.urls[0], transport=transport, timeout=30) as http:
        answers = [
            await http.post(
                "/1/2021-10-06/send_magic_link",
                json=Login(f"forged{number}@example.com").order(),
                headers={"x-forwarded-for": ip(300 + number)},
            )
            for number in range(32)
        ]
    assert said(answers) == {"done": 30, "throttled": 2}


@pytest.mark.parametrize("guesses", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_no_number_of_guesses_at_a_key_finds_it_or_locks_its_owner_out(guarded: Stack, guesses: int) -> None:
    login = Login(f"guessed{guesses}@example.com")
    code = await ordered(guarded, login, ip(400))
    id, _, _ = code.partition(".")  # noqa: A001 -- the field's name
    bodies = [(ip(400 + n % ADDRESSES), login.redemption(f"{id}.{n:064x}")) for n in range(guesses)]

    began = time.monotonic()
    answers = await flood(guarded, "/1/2021-10-06/authenticate_user", bodies)
    # 60 in five minutes, and on a slow machine the flood takes longer than that.
    windows = 1 + math.ceil((time.monotonic() - began) / 300)

    codes = said(answers)
    assert set(codes) <= {"token_not_found", "throttled"}
    assert codes["token_not_found"] <= 60 * ADDRESSES * windows
    redeemed = await guarded.call("authenticate_user", login.redemption(code), x_forwarded_for=ip(400))
    assert redeemed.status_code == 200


@pytest.mark.parametrize("guesses", [200, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_of_guesses_at_a_verifier_five_are_compared_and_a_new_link_works(guarded: Stack, guesses: int) -> None:
    login = Login(f"verified{guesses}@example.com")
    code = await ordered(guarded, login, ip(500))
    bodies = [(ip(500 + n % ADDRESSES), login.redemption(code, code_verifier=f"{n:043d}")) for n in range(guesses)]

    answers = await flood(guarded, "/1/2021-10-06/authenticate_user", bodies)

    codes = said(answers)
    assert codes["incorrect_code_verifier"] == 5
    assert set(codes) <= {"incorrect_code_verifier", "authorization_not_found", "throttled"}
    late = await guarded.call("authenticate_user", login.redemption(code), x_forwarded_for=ip(500))
    assert late.json()["code"] == "authorization_not_found"
    again = Login(login.email)
    fresh = again.redemption(await ordered(guarded, again, ip(500)))
    redeemed = await guarded.call("authenticate_user", fresh, x_forwarded_for=ip(500))
    assert redeemed.status_code == 200


@pytest.mark.parametrize("guesses", [200, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_of_guesses_at_a_texted_code_five_are_compared(
    guarded: Stack, mongo_client: MongoClient[dict[str, Any]], guesses: int
) -> None:
    number = f"+4915123{guesses:06d}"
    nonce, right = await texted(guarded, number, ip(600))
    wrong = [guess for guess in (f"{guess:06d}" for guess in range(guesses + 1)) if guess != right][:guesses]
    bodies = [(ip(600 + n % ADDRESSES), verification(guess, nonce)) for n, guess in enumerate(wrong)]

    answers = await flood(guarded, "/verify", bodies)

    assert set(said(answers)) <= {"phone_code_not_found", "throttled"}
    codes = mongo_client[guarded.environment["NEST_DATABASE_PREFIX"] + "auth"]["phone_codes"]
    assert [row["wrongCodes"] for row in codes.find({"phoneNumber": number})] == [5]
    assert said([await guarded.http.post("/verify", json=verification(right, nonce))]) == {"phone_code_not_found": 1}
    # Another path: a new text.
    nonce, right = await texted(guarded, number, ip(600))
    assert (await guarded.http.post("/verify", json=verification(right, nonce))).status_code == 200


def verification(code: str, nonce: str) -> dict[str, Any]:
    return {"code": code, "nonce": nonce, "clientid": CLIENT_ID}


async def test_a_thousand_texts_to_one_number_are_three(guarded: Stack) -> None:
    number = "+4915123999999"
    answers = await flood(guarded, "/init", [(ip(700 + n), {"phone_number": number}) for n in range(1_000)])
    assert said(answers) == {"done": 3, "throttled": 997}
    await guarded.mail(number, count=3)
    assert len(guarded.inbox.arrivals(number)) == 3
