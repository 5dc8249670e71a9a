"""The test kit on a Nest that it starts itself, and the example that uses it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from nest_client import AsyncClient, Session
from nest_client.stripe_double import DECLINED, NEEDS_AUTHENTICATION
from nest_client.testing import DATA, CardRefused, LocalNest, NestDidNotStart, TimedOut
from tests.typescript_client import built, run

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/fastapi"
COMMAND = (sys.executable, "-m", "services.cli")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalNest]:
    settings = {"PYTHONPATH": str(ROOT), "NEST_MAIL_PRODUCT_NAME": "Kit"}
    with LocalNest.start(command=COMMAND, environment=settings) as started:
        yield started
    assert not started.folder.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(started.url)


@pytest.fixture
def person(local: LocalNest) -> Session:
    return local.log_in()


def user_of(session: Session) -> str:
    return session.tokens.user_id


def test_mails_are_returned_once_in_their_order(local: LocalNest) -> None:
    email = f"{secrets.token_hex(4)}@example.com"
    for _ in range(2):
        local.client.start_login(email, client_id=local.client_id, redirect_uri=local.redirect_uri)

    first, second = local.mail(email, subject="Kit"), local.mail(email)

    assert first.id != second.id
    assert [each.id for each in local.messages(email)] == [second.id, first.id]
    assert len(first.code) == 6
    assert first.link("code=") != second.link("code=")
    with pytest.raises(TimedOut, match=r"not within 0\.1 seconds: a mail to .* arrives"):
        local.mail(email, seconds=0.1)
    with pytest.raises(LookupError, match=r"no link of .* contains 'other'"):
        first.link("other")


def test_text_has_its_code(local: LocalNest) -> None:
    number = f"+4930{secrets.randbelow(10**7):07}"
    httpx.post(f"{local.url}/init", json={"phone_number": number}).raise_for_status()
    text = local.text(number)
    assert (text.kind, len(text.code)) == ("text", 6)


def test_sample_of_the_readme_passes(local: LocalNest) -> None:
    section = (ROOT / "clients/python/README.md").read_text("utf-8").split("## Test your app")[1]
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0], names)  # noqa: S102 -- our own text

    names["test_report_needs_a_plan"](local)


def test_person_is_logged_in_with_one_call(local: LocalNest) -> None:
    session = local.log_in("taro@example.com")
    user = session.get_user(user_id=user_of(session))
    assert user["identifiers"][0]["identifier_value"] == "taro@example.com"
    assert user_of(local.log_in("taro@example.com")) == user_of(session)


async def test_session_is_used_by_asynchronous_code(local: LocalNest) -> None:
    person = await asyncio.to_thread(local.log_in)
    async with AsyncClient(local.url) as client:
        user = await client.session(person.tokens).get_user(user_id=user_of(person))
    assert user["id"] == user_of(person)


def test_trial_ends_by_the_clock(local: LocalNest, person: Session) -> None:
    local.subscribe(person)
    assert person.get_customer_state()["status"] == "trialing"
    before = local.stripe.now

    local.stripe.end_trial(user_of(person))

    assert local.stripe.now - before > timedelta(days=14)
    local.until(lambda: person.get_customer_state()["status"] == "active", "the plan is paid")
    with pytest.raises(LookupError, match="has no subscription"):
        local.stripe.subscription("user_unknown")


def test_declined_renewal_is_seen_and_recovered(local: LocalNest, person: Session) -> None:
    local.subscribe(person, trial=False)
    local.stripe.decline_card(user_of(person))
    local.stripe.renew(user_of(person))
    local.until(lambda: person.get_customer_state()["status"] == "past_due")
    local.stripe.accept_card(user_of(person))
    local.until(lambda: person.get_customer_state()["status"] == "active")


def test_checkout_says_why_a_card_is_refused(local: LocalNest, person: Session) -> None:
    with pytest.raises(CardRefused, match="declined"):
        local.subscribe(person, card=DECLINED, trial=False)
    page = person.create_checkout(
        items=[{"price_id": local.client.list_plans()["plans"][0]["prices"][0]["price_id"]}],
        success_url=local.redirect_uri,
        cancel_url=local.redirect_uri,
    )
    with pytest.raises(CardRefused, match="authenticate"):
        local.stripe.pay(page["url"], card=NEEDS_AUTHENTICATION, authenticate=False)
    assert local.stripe.pay(page["url"], card=NEEDS_AUTHENTICATION) == local.redirect_uri


def test_disturbed_webhooks_end_in_the_same_state(local: LocalNest, person: Session) -> None:
    with local.stripe.webhooks(shuffled=0.5, copies=2):
        local.subscribe(person, trial=False)
        local.stripe.dispute(user_of(person))
    disputes = local.until(lambda: local.operator.list_disputes()["disputes"], "the dispute is listed")
    assert disputes[0]["user_id"] == user_of(person)
    with local.stripe.webhooks(lost=1.0):
        local.stripe.cancel(user_of(person), now=True)
    assert person.get_customer_state()["entitled"]
    local.operator.sweep_stripe_events()
    local.until(lambda: not person.get_customer_state()["entitled"], "the lost webhook is found")


def test_kit_attaches_to_a_running_nest(local: LocalNest, tmp_path: Path) -> None:
    with LocalNest.attach(local.folder) as attached:
        assert (attached.url, attached.client_id) == (local.url, local.client_id)
        assert user_of(attached.log_in())
    assert user_of(local.log_in())
    with pytest.raises(NestDidNotStart, match="no Nest has run in"):
        LocalNest.attach(tmp_path)


def test_failed_start_shows_the_last_lines(tmp_path: Path) -> None:
    program = "import sys; sys.exit('settings are missing')"
    with pytest.raises(NestDidNotStart, match="settings are missing"):
        LocalNest.start(command=[sys.executable, "-c", program], folder=tmp_path)
    with pytest.raises(NestDidNotStart, match="/nowhere can't be run"):
        LocalNest.start(command=["/nowhere"], folder=tmp_path)


def test_example_passes_with_60_lines(local: LocalNest, tmp_path: Path) -> None:
    sources = [EXAMPLE / "app.py", EXAMPLE / "test_app.py"]
    assert sum(len(each.read_text().splitlines()) for each in sources) <= 60
    for each in sources:
        (tmp_path / each.name).write_text(each.read_text())
    environment = {**os.environ, DATA: str(local.folder), "PYTHONPATH": f"{EXAMPLE.parents[1] / 'clients/python'}"}
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "nest_client.pytest_plugin", "--rootdir", str(tmp_path), "."),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


async def test_kit_for_node_passes_its_tests(local: LocalNest) -> None:
    folder = await built()
    environment = {DATA: str(local.folder), "NEST_URL": local.url, "CLIENT_ID": local.client_id}
    output = await run("node", "--test", "tests/running/testing.mjs", cwd=folder, **environment)
    assert "# fail 0" in output


@pytest.mark.slow
def test_stranger_has_an_app_within_fifteen_minutes(tmp_path: Path) -> None:
    """The whole way, with an empty home: installation, first start, test."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("NEST_", "PYTHON", "PYTEST"))
    }
    done = subprocess.run(
        ("/bin/sh", str(EXAMPLE / "try.sh"), str(tmp_path / "app"), str(ROOT)),
        env={**environment, "HOME": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    sys.stdout.write(done.stdout)
