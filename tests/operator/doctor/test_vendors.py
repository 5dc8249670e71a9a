"""What the doctor says of accounts at Stripe and Twilio, by servers that answer as those do."""

import base64
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.stripe import MONEY, SUBSCRIPTIONS, look_at_stripe
from services.operator.doctor.twilio import look_at_twilio
from tests.mailer.twilio_double import SERVICE, SID, TOKEN
from tests.operator.web import Says, served

ISSUER = "https://nest.example"
ENDPOINT = {
    "id": "we_1",
    "url": f"{ISSUER}/1/webhook/stripe",
    "livemode": True,
    "status": "enabled",
    "enabled_events": sorted(SUBSCRIPTIONS | MONEY),
}


def stripe(**changed: Says) -> dict[str, Says]:
    usual = {
        "prices/price_1": Says({"livemode": True, "active": True}),
        "webhook_endpoints": Says({"data": [ENDPOINT]}),
        "events": Says({"data": []}),
    }
    return {f"/v1/{path}": says for path, says in {**usual, **changed}.items()}


async def of_stripe(answers: dict[str, Says], issuer: str | None = ISSUER, *, livemode: bool = True) -> list[Finding]:
    async with served(answers) as url:
        settings = SimpleNamespace(
            stripe_api_base=url,
            stripe_api_key=SecretStr("sk_live_1"),
            stripe_trial_price="price_1",
            stripe_livemode=livemode,
        )
        return [each async for each in look_at_stripe(settings, issuer) if each.area == "stripe"]


async def test_an_account_that_is_well_is_said_to_be() -> None:
    findings = await of_stripe(stripe())
    assert [each.level for each in findings] == [Level.OK] * 3, findings


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prices/price_1": Says({}, 401)}, "does not take the key"),
        ({"prices/price_1": Says({}, 403)}, "may not read prices"),
        ({"prices/price_1": Says({"error": {"code": "resource_missing"}}, 404)}, "resource_missing"),
        ({"prices/price_1": Says({"livemode": False})}, "of the other mode"),
        ({"prices/price_1": Says({"livemode": True, "active": False})}, "archived"),
        ({"webhook_endpoints": Says({"data": [{**ENDPOINT, "status": "disabled"}]})}, "we_1 is disabled"),
        ({"webhook_endpoints": Says({"data": [{**ENDPOINT, "enabled_events": ["charge.*"]}]})}, "does not send"),
    ],
)
async def test_what_is_wrong_with_an_account_is_named(wrong: dict[str, Says], told: str) -> None:
    (problem,) = [each for each in await of_stripe(stripe(**wrong)) if each.level is Level.PROBLEM]
    assert told in problem.says
    assert problem.do


async def test_a_live_key_where_test_mode_is_meant_is_named() -> None:
    findings = await of_stripe(stripe(), livemode=False)
    assert [each.says for each in findings if each.level is Level.PROBLEM] == [
        "the key is of the other mode",
    ]
    assert f"no webhook endpoint of the test mode leads to {ENDPOINT['url']}" in [each.says for each in findings]


@pytest.mark.parametrize(
    "endpoints", [[], [{**ENDPOINT, "livemode": False}], [{**ENDPOINT, "url": "https://x.example"}]]
)
async def test_an_endpoint_that_leads_elsewhere_or_is_of_the_other_mode_is_none(endpoints: list[Any]) -> None:
    findings = await of_stripe(stripe(webhook_endpoints=Says({"data": endpoints})))
    (told,) = [each for each in findings if each.level is not Level.OK]
    assert (told.level, "no webhook endpoint of the live mode" in told.says) == (Level.WARNING, True)


@pytest.mark.parametrize(("lacking", "level"), [(SUBSCRIPTIONS, Level.PROBLEM), (MONEY, Level.WARNING)])
async def test_every_event_that_an_endpoint_does_not_send_is_named(lacking: frozenset[str], level: Level) -> None:
    for kind in lacking:
        endpoint = {**ENDPOINT, "enabled_events": sorted((SUBSCRIPTIONS | MONEY) - {kind})}
        findings = await of_stripe(stripe(webhook_endpoints=Says({"data": [endpoint]})))
        (told,) = [each for each in findings if each.level is not Level.OK]
        assert (told.level, told.says) == (level, f"the webhook endpoint we_1 does not send {kind}")


async def test_an_endpoint_that_sends_everything_sends_enough() -> None:
    everything = Says({"data": [{**ENDPOINT, "enabled_events": ["*"]}]})
    assert {each.level for each in await of_stripe(stripe(webhook_endpoints=everything))} == {Level.OK}


def test_the_events_are_those_that_the_page_on_stripe_asks_for() -> None:
    page = (Path(__file__).parents[3] / "docs/stripe.md").read_text()
    told = page[page.index("3. A webhook endpoint") : page.index("Its signing")]
    named, family = set(), ""
    for word in re.findall(r"`([a-z_.]+)`", told):
        family = family if word.startswith(".") else word.rpartition(".")[0]
        named.add(family + word if word.startswith(".") else word)
    assert named == SUBSCRIPTIONS | MONEY


async def test_events_that_were_not_delivered_of_late_are_counted() -> None:
    now = int(time.time())
    events = Says({"data": [{"created": now - 60}, {"created": now - 3 * 24 * 3600}]})
    (told,) = [each for each in await of_stripe(stripe(events=events)) if each.level is not Level.OK]
    assert (told.level, "could not deliver 1 events" in told.says) == (Level.WARNING, True)
    assert "NEST_STRIPE_WEBHOOK_SECRETS" in told.do


async def test_what_a_restricted_key_may_not_read_is_no_problem() -> None:
    findings = await of_stripe(stripe(webhook_endpoints=Says({}, 403), events=Says({}, 403)))
    assert [each.level for each in findings] == [Level.OK, Level.WARNING, Level.WARNING]


async def test_nothing_leads_from_stripe_to_a_machine_of_ones_own() -> None:
    findings = await of_stripe(stripe(webhook_endpoints=Says({"data": []})), "http://127.0.0.1:8080")
    assert [each.level for each in findings] == [Level.OK] * 2


def twilio(**changed: Says) -> dict[str, Says]:
    usual = {
        f"/2010-04-01/Accounts/{SID}.json": Says({"status": "active"}),
        f"/v1/Services/{SERVICE}": Says({"sid": SERVICE}),
        f"/v1/Services/{SERVICE}/PhoneNumbers": Says({"phone_numbers": [{"phone_number": "+15005550006"}]}),
    }
    return {**usual, **changed}


async def of_twilio(answers: dict[str, Says]) -> list[Finding]:
    async with served(answers) as url:
        settings = SimpleNamespace(
            twilio_api_base=url,
            twilio_account_sid=SID,
            twilio_auth_token=SecretStr(TOKEN),
            twilio_messaging_service_sid=SERVICE,
        )
        return [each async for each in look_at_twilio(settings)]


async def test_an_account_with_a_number_is_well() -> None:
    findings = await of_twilio(twilio())
    assert [each.level for each in findings] == [Level.OK] * 2
    assert "1 phone numbers" in findings[-1].says


async def test_twilio_is_asked_with_the_accounts_own_secret() -> None:
    heard: list[str] = []

    def account(request: web.Request) -> dict[str, str]:
        heard.append(request.headers["authorization"])
        return {"status": "active"}

    await of_twilio(twilio(**{f"/2010-04-01/Accounts/{SID}.json": Says(account)}))
    assert heard == ["Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()]


@pytest.mark.parametrize(
    ("path", "says", "told"),
    [
        (f"/2010-04-01/Accounts/{SID}.json", Says({}, 401), "does not take the account"),
        (f"/2010-04-01/Accounts/{SID}.json", Says({}, 503), "answers 503"),
        (f"/2010-04-01/Accounts/{SID}.json", Says({"status": "suspended"}), "is suspended"),
        (f"/v1/Services/{SERVICE}", Says({}, 404), "does not know the messaging service"),
        (f"/v1/Services/{SERVICE}/PhoneNumbers", Says({"phone_numbers": []}), "no number and no name"),
    ],
)
async def test_what_is_wrong_with_texts_is_named(path: str, says: Says, told: str) -> None:
    worst = (await of_twilio(twilio(**{path: says})))[-1]
    assert (worst.level, told in worst.says) == (Level.PROBLEM, True), worst
    assert worst.do
    assert TOKEN not in worst.says + worst.do


async def test_a_name_to_send_from_will_do() -> None:
    named = {
        f"/v1/Services/{SERVICE}/PhoneNumbers": Says({"phone_numbers": []}),
        f"/v1/Services/{SERVICE}/AlphaSenders": Says({"alpha_senders": [{"alpha_sender": "BEAK"}]}),
    }
    assert (await of_twilio(twilio(**named)))[-1].level is Level.OK
