"""Search for an erased person in everything that Nest stores, publishes and exports."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

import pytest

from shared.bus.topics import DAY, MINUTE, declared
from tests.end_to_end.flows import (
    Mongo,
    Person,
    database,
    finished,
    operator_call,
    process_when,
    report_mail,
    unfinished,
    unsubscribe_path,
)
from tests.end_to_end.search import documents, found, is_permanent, metrics, records
from tests.mailer.mailchimp_double import MailchimpDouble, member_hash
from tests.personal_data import COLLECTIONS
from tests.stack import Stack, eventually
from tests.traces import Traces

WEEK: Final = 7 * DAY
"""Retention of commands: a service may be stopped for so long without losing any."""
TEMPORARY: Final[dict[tuple[str, str], tuple[int, str]]] = {
    ("auth.commands", "auth.send-magic-link"): (WEEK, "address of the link"),
    ("auth.commands", "auth.create-trial-and-magic-link"): (WEEK, "address of the link"),
    ("auth.service-commands", "auth.send-trial-magic-link"): (WEEK, "address of the link"),
    ("auth.commands", "auth.send-phone-code"): (WEEK, "number of the text"),
    ("auth.commands", "auth.register-phone-user"): (WEEK, "names of the user"),
    ("auth.service-commands", "auth.ensure-user"): (WEEK, "address of the Stripe customer"),
    ("auth.events", "auth.identifier-verified"): (WEEK, "the verified identifier"),
    ("billing.commands", "billing.start-trial"): (WEEK, "address for the Stripe customer"),
    ("billing.commands", "billing.finish-trial"): (WEEK, "address for the Stripe customer"),
    ("billing.commands", "billing.redeem-trial"): (WEEK, "address by which the person is recognized"),
    ("stripe.webhooks", "stripe.event"): (WEEK, "Stripe's event, as signed"),
    ("gateway.replies", ""): (10 * MINUTE, "reply about a user"),
    ("mailer.commands", "mailer.unknown"): (WEEK, "published by this test"),
    ("stripe.webhooks", "stripe.unknown"): (WEEK, "published by this test"),
}
"""Records that contain readable personal data: topic and wire name, retention in milliseconds, and the data.

The IP address of a caller is in every command too, for the rate limits and the audit.
"""


@pytest.mark.parametrize("template", ["{}", "x{}", "xy{}"])
def test_value_is_found_in_every_encoding(template: str) -> None:
    text = template.format("ada@example.com").encode()
    assert found("ada@example.com", text)
    assert found("ada@example.com", text.upper())
    assert found("ada@example.com", base64.b64encode(text + b"..."))
    assert found("ada@example.com", text.hex().encode())
    assert found("ada@example.com", text.replace(b"@", b"%40"))
    assert found("Öberg", json.dumps({"name": f"{template.format('')}Öberg"}).encode())
    assert found("ada@example.com", repr(hashlib.sha256(b"ada@example.com").digest()).encode())
    assert not found("ada@example.com", b"bda@example.com")


async def test_nothing_readable_is_left_of_an_erased_person(
    *, separate: Stack, traces: Traces, mailchimp: MailchimpDouble, email: str, mongo_client: Mongo
) -> None:
    nest, person = separate, Person(email)
    with person.calling_from_own_ip(nest):
        await person.start_trial(nest)
        await person.log_in_with_mistakes(nest)
        await person.consent_and_dismiss(nest)
        await person.use_phone(nest)
        await person.pay_and_dispute(nest)
        await person.be_reported_by_others(nest, mongo_client)
        await person.request_link(nest)
    await eventually(lambda: mailchimp.status_of(email) == "subscribed", what="Mailchimp")
    await finished(nest, await operator_call(nest, "export_user", user_id=person.user_id))
    before = documents(nest, mongo_client)
    for value in (email, person.number, person.first_name, person.ip):
        assert any(found(value, text) for text in before.values()), f"the search does not find {value}"
    assert {name: set(COLLECTIONS[name]) for name in COLLECTIONS} == {
        name: {each.partition(".")[2] for each in before if each.startswith(f"{name}.")} for name in COLLECTIONS
    }

    await _erase_while_mailer_and_mailchimp_are_down(person, nest, mailchimp)

    with person.calling_from_own_ip(nest):
        await _send_late_messages(person, nest)
    assert [each for each in nest.stripe.objects("customer") if each.get("email") == email] == []
    after = documents(nest, mongo_client)
    assert _readable(person, {**after, "auth.audit": _attributed_audit(nest, mongo_client)}) == []
    exported = {f"log of {name}": process.log.encode() for name, process in nest.processes.items()}
    exported |= {"metrics": await metrics(nest), "traces": b"\n".join(traces.bodies)}
    assert all(exported.values())
    assert _readable(person, exported) == []
    await _assert_topics_are_temporary(person, nest)


async def _erase_while_mailer_and_mailchimp_are_down(person: Person, nest: Stack, mailchimp: MailchimpDouble) -> None:
    await nest.processes["mailer"].stop()
    mailchimp.always = 503
    try:
        processes = [
            await operator_call(nest, "erase_user", user_id=person.user_id, delete_stripe_customer=True),
            await operator_call(nest, "erase_user", user_id=person.phone_user_id),
        ]
        await nest.processes["mailer"].start()
        await process_when(nest, processes[0], lambda now: unfinished(now) == {"mailer": "mailchimp"})
        shown = await nest.command("users", "erase", "--process", processes[0]["id"], "--wait", "1")
        assert (shown.code, "waiting for mailer (which waits for mailchimp: 503 Fault)" in shown.err) == (2, True)
    finally:
        mailchimp.always = None
    for process in processes:
        await finished(nest, process)
    assert (mailchimp.status_of(person.email), member_hash(person.email) in mailchimp.erased) == (None, True)


def _attributed_audit(nest: Stack, mongo_client: Mongo) -> bytes:
    """Return the audit without IP addresses of entries that have neither user nor session: they identify nobody."""
    entries = database(nest, mongo_client, "auth")["audit"].find()
    anonymous = {"clientIp": None}
    return "\n".join(
        repr(entry if entry["userId"] or entry["sessionId"] else {**entry, **anonymous}) for entry in entries
    ).encode()


def _readable(person: Person, places: dict[str, bytes]) -> list[str]:
    """Return the places that identify a person, with the value that does."""
    return [
        f"{value} in {name}"
        for name, text in places.items()
        for value in person.identifying_values
        if found(value, text)
    ]


async def _send_late_messages(person: Person, nest: Stack) -> None:
    """Send what may arrive after the erasure; none of it restores the person."""
    assert person.open_link is not None
    login, code = person.open_link
    late = await nest.call("authenticate_user", login.redemption(code))
    assert (late.status_code, late.json()["code"]) == (404, "token_not_found")
    consent = {"user_id": person.user_id, "level": "general"}
    bearer = f"bearer {person.tokens['access_token']}"
    assert (await nest.call("set_marketing_consent", consent, authorization=bearer)).status_code in {401, 404}
    assert (await nest.call("set_marketing_consent", consent, **nest.internal)).status_code == 404
    path = unsubscribe_path(nest, person.user_id)
    clicked = await nest.http.post(path, data={"List-Unsubscribe": "One-Click"})
    assert clicked.status_code == 200
    reason = f"<{person.email}> nobody here"
    assert await report_mail(nest, "bounced", person.message_id, status="5.1.1", reason=reason) == 200
    await nest.stripe.webhooks.drain(60)
    assert (await nest.call("get_user", {"user_id": person.user_id}, **nest.internal)).status_code == 404
    unknown = {"identifier_type": "email", "identifier_value": person.email}
    assert (await nest.call("find_user", unknown, **nest.internal)).status_code == 404
    consent = await nest.call("get_marketing_consent", {"user_id": person.user_id}, **nest.internal)
    assert (consent.status_code, consent.json()["code"]) == (404, "not_found")


async def _assert_topics_are_temporary(person: Person, nest: Stack) -> None:
    """Assert that permanent topics have no personal data, and the others only the data listed in TEMPORARY."""
    topics = {topic.name: topic for topic in declared()}
    read = await records(nest, topics.values())
    permanent = {
        f"{each.topic} {number}": each.text for number, each in enumerate(read) if is_permanent(topics[each.topic])
    }
    assert _readable(person, permanent) == []
    values = [value for value in person.identifying_values if value != person.ip]
    readable = {(each.topic, each.wire) for each in read if any(found(value, each.text) for value in values)}
    assert sorted(readable ^ set(TEMPORARY)) == []
    for (topic, _), (retention, _) in TEMPORARY.items():
        assert (topics[topic].retention, is_permanent(topics[topic])) == (retention, False), topic
