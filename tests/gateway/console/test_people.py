"""Pages of people with stand-ins for the services: parts that fail, confirmations, and downloads."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

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
    assert page.text.count('class="note warn"') == 4
    assert "No live session" in page.text


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
