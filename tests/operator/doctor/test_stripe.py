"""Checks of a Stripe account on a server with its responses."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.stripe import PAYMENT_EVENTS, SUBSCRIPTION_EVENTS, check_stripe
from tests.operator.http_server import Reply, serving

ISSUER = "https://nest.example"
ENDPOINT = {
    "id": "we_1",
    "url": f"{ISSUER}/1/webhook/stripe",
    "livemode": True,
    "status": "enabled",
    "enabled_events": sorted(SUBSCRIPTION_EVENTS | PAYMENT_EVENTS),
}


def account(**changed: Reply) -> dict[str, Reply]:
    """Return the replies of an account without faults, with changes."""
    usual = {
        "prices/price_1": Reply({"livemode": True, "active": True}),
        "webhook_endpoints": Reply({"data": [ENDPOINT]}),
        "events": Reply({"data": []}),
    }
    return {f"/v1/{path}": reply for path, reply in {**usual, **changed}.items()}


async def check(
    replies: dict[str, Reply], issuer: str | None = ISSUER, *, livemode: bool = True, products: tuple[str, ...] = ()
) -> list[Finding]:
    async with serving(replies) as url:
        settings = SimpleNamespace(
            stripe_api_base=url,
            stripe_api_key=SecretStr("sk_live_1"),
            stripe_trial_price="price_1",
            stripe_livemode=livemode,
            stripe_products=products,
        )
        return [each async for each in check_stripe(settings, issuer) if each.area != "clock"]


async def check_endpoints(*endpoints: dict[str, Any]) -> Finding:
    """Check an account with these endpoints, and return the only finding that is not OK."""
    findings = await check(account(webhook_endpoints=Reply({"data": list(endpoints)})))
    (finding,) = [each for each in findings if each.level is not Level.OK]
    return finding


async def test_account_without_faults_is_ok() -> None:
    findings = await check(account())
    assert [each.level for each in findings] == [Level.OK] * 3, findings


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"prices/price_1": Reply({}, 401)}, "refuses the API key"),
        ({"prices/price_1": Reply({}, 403)}, "may not read prices"),
        ({"prices/price_1": Reply({"error": {"code": "resource_missing"}}, 404)}, "resource_missing"),
        ({"prices/price_1": Reply({"livemode": False})}, "of the other mode"),
        ({"prices/price_1": Reply({"livemode": True, "active": False})}, "archived"),
        ({"webhook_endpoints": Reply({"data": [{**ENDPOINT, "status": "disabled"}]})}, "we_1 is disabled"),
        ({"webhook_endpoints": Reply({"data": [{**ENDPOINT, "enabled_events": ["charge.*"]}]})}, "does not send"),
    ],
)
async def test_fault_of_the_account_is_a_problem(changed: dict[str, Reply], text: str) -> None:
    (problem,) = [each for each in await check(account(**changed)) if each.level is Level.PROBLEM]
    assert text in problem.says
    assert problem.do


async def test_trial_price_of_a_product_that_is_not_nests_is_a_problem() -> None:
    price = account(**{"prices/price_1": Reply({"livemode": True, "active": True, "product": "prod_2"})})
    (problem,) = [each for each in await check(price, products=("prod_1",)) if each.level is Level.PROBLEM]
    assert "prod_2" in problem.says
    assert {each.level for each in await check(price, products=("prod_1", "prod_2"))} == {Level.OK}


async def test_live_key_in_test_mode_is_a_problem() -> None:
    findings = await check(account(), livemode=False)
    assert [each.says for each in findings if each.level is Level.PROBLEM] == ["the key is of the other mode"]
    assert f"no webhook endpoint of the test mode sends to {ENDPOINT['url']}" in [each.says for each in findings]


@pytest.mark.parametrize(
    "endpoints", [[], [{**ENDPOINT, "livemode": False}], [{**ENDPOINT, "url": "https://x.example"}]]
)
async def test_endpoint_with_another_url_or_mode_does_not_count(endpoints: list[Any]) -> None:
    finding = await check_endpoints(*endpoints)
    assert (finding.level, "no webhook endpoint of the live mode" in finding.says) == (Level.WARNING, True)


@pytest.mark.parametrize(("events", "level"), [(SUBSCRIPTION_EVENTS, Level.PROBLEM), (PAYMENT_EVENTS, Level.WARNING)])
async def test_every_event_missing_from_the_endpoint_is_named(events: frozenset[str], level: Level) -> None:
    for event in events:
        others = sorted((SUBSCRIPTION_EVENTS | PAYMENT_EVENTS) - {event})
        finding = await check_endpoints({**ENDPOINT, "enabled_events": others})
        assert (finding.level, finding.says) == (level, f"the webhook endpoint we_1 does not send {event}")


async def test_endpoint_with_all_events_is_ok() -> None:
    everything = Reply({"data": [{**ENDPOINT, "enabled_events": ["*"]}]})
    assert {each.level for each in await check(account(webhook_endpoints=everything))} == {Level.OK}


def test_checked_events_are_those_of_the_setup_guide() -> None:
    guide = (Path(__file__).parents[3] / "docs/stripe.md").read_text()
    step = guide[guide.index("3. A webhook endpoint") : guide.index("Its signing")]
    named, family = set(), ""
    for word in re.findall(r"`([a-z_.]+)`", step):
        family = family if word.startswith(".") else word.rpartition(".")[0]
        named.add(family + word if word.startswith(".") else word)
    assert named == SUBSCRIPTION_EVENTS | PAYMENT_EVENTS


async def test_undelivered_events_of_the_last_day_are_counted() -> None:
    now = int(time.time())
    events = Reply({"data": [{"created": now - 60}, {"created": now - 3 * 24 * 3600}]})
    (finding,) = [each for each in await check(account(events=events)) if each.level is not Level.OK]
    assert (finding.level, "could not deliver 1 events" in finding.says) == (Level.WARNING, True)
    assert "NEST_STRIPE_WEBHOOK_SECRETS" in finding.do


async def test_missing_permission_of_a_restricted_key_is_a_warning() -> None:
    findings = await check(account(webhook_endpoints=Reply({}, 403), events=Reply({}, 403)))
    assert [each.level for each in findings] == [Level.OK, Level.WARNING, Level.WARNING]


async def test_local_issuer_needs_no_webhook_endpoint() -> None:
    findings = await check(account(webhook_endpoints=Reply({"data": []})), "http://127.0.0.1:8080")
    assert [each.level for each in findings] == [Level.OK] * 2
