"""Pages of people with stand-ins for the services: parts that fail, confirmations, and downloads."""

from __future__ import annotations

import json
import re
from typing import Any, get_args
from urllib.parse import urlencode

import httpx
import pytest

from services.billing.events.models import Outcome
from services.gateway.console.people import OUTCOMES
from shared.messages.billing.history import BillingHistoryEntry
from tests.gateway.conftest import GatewayStack
from tests.gateway.console.test_login import csrf_of
from tests.gateway.fake_services import Refused

AT = "2026-11-01T00:00:00.000Z"
USER = {
    "id": "user_1",
    "created_at": AT,
    "identifiers": [
        {
            "id": "identifier_1",
            "identifier_type": "email",
            "identifier_value": "<b>ada</b>@example.com",
            "created_at": AT,
            "updated_at": AT,
            "verified_at": AT,
            "removed_at": None,
        }
    ],
}
PERSON = "/console/people/user_1"


def process(kind: str) -> dict[str, Any]:
    services = [{"service": "auth", "done_at": AT, "waits_for": None, "waits_since": None, "reason": None}]
    return {
        "id": "userproc_1",
        "kind": kind,
        "user_id": "user_1",
        "state": "done",
        "requested_at": AT,
        "finished_at": AT,
        "expires_at": AT,
        "services": services,
    }


@pytest.fixture
def person(stack: GatewayStack) -> GatewayStack:
    """Services that answer for one person; billing and mailer are away."""
    away = Refused("unavailable", "unavailable")
    stack.services.replies |= {
        "auth.get-user": lambda _: USER,
        "auth.list-sessions": lambda _: [],
        "auth.list-audit-entries": lambda _: {"entries": [], "next_cursor": None},
        "billing.get-customer-state": lambda _: away,
        "billing.list-billing-history": lambda _: away,
        "billing.list-stripe-events": lambda _: away,
        "billing.list-payments": lambda _: away,
        "mailer.list-deliveries": lambda _: away,
        "auth.erase-user": lambda _: process("erasure"),
    }
    return stack


async def post(stack: GatewayStack, path: str, page: str = PERSON, **form: str) -> httpx.Response:
    csrf = csrf_of(await stack.http.get(page))
    origin = str(stack.http.base_url).rstrip("/")
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": origin}
    return await stack.http.post(path, content=urlencode({"csrf": csrf, **form}), headers=headers)


async def test_page_of_a_person_shows_what_the_other_services_answer(person: GatewayStack) -> None:
    page = await person.http.get(PERSON)
    assert page.status_code == 200
    assert "&lt;b&gt;ada&lt;/b&gt;@example.com" in page.text
    assert "<b>ada" not in page.text
    assert page.text.count('class="note warn"') == 5
    assert "No live session" in page.text


async def test_stripe_events_stand_beside_the_history_with_their_states(person: GatewayStack) -> None:
    def event(number: int, kind: str, outcome: str | None) -> dict[str, Any]:
        times = {"made_at": AT, "received_at": AT, "handled_at": outcome and "2026-11-01T00:00:02.000Z"}
        names = {"stp_event_id": f"evt_{number}", "type": kind, "object_type": "invoice", "object_id": f"in_{number}"}
        return {**names, **times, "outcome": outcome}

    events = [
        event(1, "invoice.payment_failed", None),
        event(2, "customer.subscription.updated", "read"),
        event(3, "<i>future</i>", "not_followed"),
        event(4, "charge.refunded", "a_new_outcome"),
    ]
    started = BillingHistoryEntry.model_validate({"id": "a", "at": AT, "event": "subscription-started"})
    person.services.replies |= {
        "billing.list-billing-history": lambda _: {
            "entries": [started.model_dump(mode="json")],
            "next_cursor": None,
        },
        "billing.list-stripe-events": lambda _: {"events": events, "next_cursor": None},
    }
    text = (await person.http.get(PERSON)).text
    history, _, column = text.partition('id="stripe-events"')
    assert "Subscription started" in history
    column = column.partition("</section>")[0]
    entries = [" ".join(re.sub(r"<[^>]+>", " ", f"<li{each}").split()) for each in column.split("<li")[1:]]
    assert entries == [
        "invoice.payment_failed pending 2026-11-01 00:00:00 UTC in_1 Received 2026-11-01 00:00:00 , not handled yet",
        *(
            f"{kind} 2026-11-01 00:00:00 UTC in_{number}"
            f" Received 2026-11-01 00:00:00 → handled 2026-11-01 00:00:02 : {words}"
            for number, kind, words in (
                (2, "customer.subscription.updated", "read and recorded"),
                (3, "&lt;i&gt;future&lt;/i&gt;", "not followed"),
                (4, "charge.refunded", "a_new_outcome"),
            )
        ),
    ]
    [asked] = [json.loads(each.body) for each in person.services.received if each.wire == "billing.list-stripe-events"]
    assert (asked["user_id"], asked["limit"]) == ("user_1", 20)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(900, "eur", "9.00 EUR"), (500, "jpy", "500 JPY"), (500, "xof", "500 XOF"), (5120, "kwd", "5.120 KWD")],
)
async def test_amounts_have_the_decimals_of_their_currency(
    person: GatewayStack, amount: int, currency: str, shown: str
) -> None:
    paid = {"id": "a", "at": AT, "event": "payment-succeeded", "amount": amount, "currency": currency}
    entries = [BillingHistoryEntry.model_validate(paid).model_dump(mode="json")]
    person.services.replies["billing.list-billing-history"] = lambda _: {"entries": entries, "next_cursor": None}
    assert f'<span class="nowrap">{shown}</span>' in (await person.http.get(PERSON)).text


async def test_person_without_stripe_events_reads_what_appears_there(person: GatewayStack) -> None:
    person.services.replies["billing.list-stripe-events"] = lambda _: {"events": [], "next_cursor": None}
    column = (await person.http.get(PERSON)).text.partition('id="stripe-events"')[2]
    assert "appear here as they arrive" in column.partition("</section>")[0]


def test_every_outcome_has_words() -> None:
    assert OUTCOMES.keys() == set(get_args(Outcome))


async def test_unknown_person_is_said_in_a_sentence(person: GatewayStack) -> None:
    person.services.replies["auth.get-user"] = lambda _: Refused("not_found", "not_found")
    page = await person.http.get(PERSON)
    assert page.status_code == 404
    assert 'role="alert"' in page.text


@pytest.mark.parametrize(("word", "status"), [("", 422), ("delete", 422), ("erase", 303), (" ERASE ", 303)])
async def test_erasure_needs_its_word(person: GatewayStack, word: str, status: int) -> None:
    response = await post(person, f"{PERSON}/erase", word=word)
    assert response.status_code == status
    erased = [each for each in person.services.received if each.wire == "auth.erase-user"]
    assert len(erased) == (1 if status == 303 else 0)


async def test_refused_search_keeps_what_was_typed(stack: GatewayStack) -> None:
    stack.services.replies["auth.list-users"] = lambda _: Refused("forbidden", "partial_search_disabled")
    page = await stack.http.get("/console/people?search=ada%22%40")
    assert page.status_code == 403
    assert 'value="ada&#34;@"' in page.text
    assert "NEST_USER_SEARCH" in page.text


async def test_double_press_counts_once(person: GatewayStack) -> None:
    person.services.replies["auth.export-user"] = lambda _: process("export")
    for _ in range(2):
        assert (await post(person, f"{PERSON}/export", once="0" * 32)).status_code == 303
    ids = {each.id for each in person.services.received if each.wire == "auth.export-user"}
    assert len(ids) == 1
