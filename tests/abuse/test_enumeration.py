"""Nobody learns from an answer, or from its time, whether an address, a number or an account is known."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from tests.abuse.conftest import Target
from tests.abuse.ranks import likelihood_of_one_source
from tests.stack import Login

PASSWORD: Final = "a long sentence is easy to keep"
PEOPLE: Final = 5
"""Known ones, and as many unknown ones: the same are asked for again and again, as somebody who measures would."""
FEW: Final = 5
MANY: Final = 1000
CHANCE: Final = 0.01
"""Once in a hundred times two samples of one source differ so much; so such a result is looked at twice."""

Ask = Callable[[str], Awaitable[httpx.Response]]


@dataclass(frozen=True)
class Question:
    """A call that could tell whether somebody is known.

    Attributes:
        known: whom Nest knows.
        unknown: whom it does not; as long, and of the same form.
        ask: the call.
    """

    known: list[str]
    unknown: list[str]
    ask: Ask


def names(form: str) -> list[str]:
    """Of one length, and new in every run."""
    return [form.format(secrets.token_hex(4)) for _ in range(PEOPLE)]


def numbers() -> list[str]:
    """Swiss mobile numbers."""
    return [f"+4179{secrets.randbelow(10**7):07}" for _ in range(PEOPLE)]


async def links(target: Target) -> Question:
    known, unknown = names("ada{}@example.com"), names("eve{}@example.com")
    for email in known:
        await target.nest.log_in(email)
    return Question(known, unknown, lambda email: target.nest.call("send_magic_link", Login(email).order()))


async def texts(target: Target) -> Question:
    http, known, unknown = target.nest.http, numbers(), numbers()
    client = Login("nobody@example.com").client_id
    for number in known:
        nonce = (await http.post("/init", json={"phone_number": number})).text
        code = (await target.text(number)).partition("#")[2].strip()
        verified = await http.post("/verify", json={"code": code, "nonce": nonce, "clientid": client})
        assert verified.status_code == 200, verified.text
    return Question(known, unknown, lambda number: http.post("/init", json={"phone_number": number}))


async def owners(target: Target) -> Question:
    http, known, unknown = target.nest.http, names("ada{}@example.com"), names("eve{}@example.com")
    for email in known:
        body = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "password": PASSWORD}
        assert (await http.post("/appowner/create", json=body)).status_code == 200
    return Question(
        known,
        unknown,
        lambda email: http.post("/appowner/login", json={"email": email, "password": f"not {PASSWORD}"}),
    )


async def application_users(target: Target) -> Question:
    http, known, unknown = target.nest.http, names("ada{}@example.com"), names("eve{}@example.com")
    body = {"firstname": "A", "lastname": "B", "email": names("own{}@example.com")[0], "password": PASSWORD}
    owner = (await http.post("/appowner/create", json=body)).json()
    application = (await http.post("/applications/create", json={"owneruuid": owner["uuid"], "appname": "a"})).json()
    key = application["apiKey"]
    for email in known:
        body = {"apikey": key, "username": "ada", "email": email, "password": PASSWORD}
        assert (await http.post("/users/signup", json=body)).status_code == 202
    return Question(
        known,
        unknown,
        lambda email: http.post(
            "/users/signwithemail", json={"apikey": key, "email": email, "password": f"not {PASSWORD}"}
        ),
    )


QUESTIONS: Final = {
    "send_magic_link": links,
    "/init": texts,
    "/appowner/login": owners,
    "/users/signwithemail": application_users,
}


def shape(answer: httpx.Response) -> tuple[Any, ...]:
    """What of an answer may not differ: status, names of headers, and the body without what is new in each."""
    body: Any = answer.text
    if answer.headers.get("content-type", "").startswith("application/json"):
        body = json.loads(answer.text)
        body.get("meta", {}).pop("request_id", None)
    elif answer.text:
        body = len(answer.text)
    return answer.status_code, tuple(sorted(answer.headers)), json.dumps(body, sort_keys=True)


async def samples(question: Question, each: int) -> dict[bool, list[tuple[float, tuple[Any, ...]]]]:
    """Seconds and shape of so many answers about known and about unknown people, in random order."""
    found: dict[bool, list[tuple[float, tuple[Any, ...]]]] = {True: [], False: []}
    order = [True, False] * each
    random.SystemRandom().shuffle(order)
    for known in order:
        person = secrets.choice(question.known if known else question.unknown)
        began = time.perf_counter()
        answer = await question.ask(person)
        found[known].append((time.perf_counter() - began, shape(answer)))
    return found


@pytest.mark.parametrize("name", QUESTIONS)
async def test_answers_about_known_and_unknown_people_look_the_same(target: Target, name: str) -> None:
    question = await QUESTIONS[name](target)
    found = await samples(question, FEW)
    shapes = {shape for sample in found.values() for _, shape in sample}
    assert len(shapes) == 1, shapes


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
async def test_answers_about_known_and_unknown_people_take_the_same_time(target: Target, name: str) -> None:
    question = await QUESTIONS[name](target)
    await samples(question, FEW)
    likelihood = 0.0
    for _ in range(2):
        found = await samples(question, MANY)
        assert len({shape for sample in found.values() for _, shape in sample}) == 1
        likelihood = likelihood_of_one_source(*([seconds for seconds, _ in found[known]] for known in (True, False)))
        if likelihood > CHANCE:
            break
    assert likelihood > CHANCE
