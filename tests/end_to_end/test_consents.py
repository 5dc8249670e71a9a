"""Marketing consent: set by user, operator or unsubscribe link, and sent to Mailchimp."""

from __future__ import annotations

import asyncio

from tests.end_to_end.flows import Mongo, database, unsubscribe_path
from tests.mailer.mailchimp_double import MailchimpDouble
from tests.stack import Stack, eventually


async def test_consent_is_unknown_until_it_is_set(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    bearer, body = f"bearer {tokens['access_token']}", {"user_id": tokens["user_id"]}

    awaited = await nest.call("get_marketing_consent", body, authorization=bearer)
    stored = await nest.call("set_marketing_consent", {**body, "level": "general"}, authorization=bearer)
    known = await nest.call("get_marketing_consent", body, authorization=bearer)

    assert (awaited.status_code, awaited.json()["code"]) == (404, "awaiting_consent")
    assert (stored.status_code, stored.content) == (204, b"")
    assert known.json() == {"level": "general"}


async def test_consent_of_an_unknown_user_is_not_found(nest: Stack) -> None:
    for method, body in (("set_marketing_consent", {"level": "none"}), ("get_marketing_consent", {})):
        response = await nest.call(method, {"user_id": "user_missing", **body}, **nest.internal)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_parallel_changes_are_all_stored_and_the_last_one_holds(
    nest: Stack, mongo_client: Mongo, email: str
) -> None:
    tokens = await nest.log_in(email)
    user_id, bearer = tokens["user_id"], f"bearer {tokens['access_token']}"
    general = {"user_id": user_id, "level": "general"}
    responses = await asyncio.gather(
        nest.call("set_marketing_consent", general, authorization=bearer),
        nest.http.post(unsubscribe_path(nest, user_id)),
        nest.call("set_marketing_consent", general, **nest.internal),
    )
    assert [response.status_code for response in responses] == [204, 200, 204]
    changes = database(nest, mongo_client, "mailer")["marketing_consent_changes"]
    rows = list(changes.find({"userId": user_id}).sort("number"))
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert {(row["source"], row["level"], row["caller"]["kind"]) for row in rows} == {
        ("user", "general", "user"),
        ("unsubscribe-link", "none", "anonymous"),
        ("internal", "general", "internal"),
    }
    response = await nest.call("get_marketing_consent", {"user_id": user_id}, authorization=bearer)
    assert response.json()["level"] == rows[-1]["level"]


async def test_one_click_unsubscribes_without_a_login(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    user_id, bearer = tokens["user_id"], f"bearer {tokens['access_token']}"
    await nest.call("set_marketing_consent", {"user_id": user_id, "level": "general"}, authorization=bearer)
    path = unsubscribe_path(nest, user_id)

    async def level() -> str:
        response = await nest.call("get_marketing_consent", {"user_id": user_id}, authorization=bearer)
        return str(response.json()["level"])

    # A mail server that opens every link must not unsubscribe anybody (RFC 8058).
    assert "Unsubscribe" in (await nest.http.get(path)).text
    assert await level() == "general"
    response = await nest.http.post(path, data={"List-Unsubscribe": "One-Click"})
    assert (response.status_code, await level()) == (200, "none")


async def test_last_consent_reaches_mailchimp_after_failed_attempts(
    separate: Stack, email: str, mailchimp: MailchimpDouble
) -> None:
    nest = separate
    tokens = await nest.log_in(email)
    body = {"user_id": tokens["user_id"]}
    bearer = f"bearer {tokens['access_token']}"
    # Mailchimp applies the second request before it fails.
    mailchimp.faults.extend([503, "done-500"])
    for level in ("general", "none", "general"):
        stored = await nest.call("set_marketing_consent", {**body, "level": level}, authorization=bearer)
        assert stored.status_code == 204
    await eventually(lambda: mailchimp.status_of(email) == "subscribed", what="subscribed")
    stored = await nest.call("set_marketing_consent", {**body, "level": "none"}, **nest.internal)
    await eventually(lambda: mailchimp.status_of(email) == "unsubscribed", what="unsubscribed")
    known = await nest.call("get_marketing_consent", body, authorization=bearer)
    assert known.json() == {"level": "none"}
