"""Somebody does everything, is erased while a service and a vendor are away, and then cannot be read anywhere."""

import base64
import hashlib
import json
from typing import Any, Final

import pytest
from pymongo import MongoClient

from shared.bus.topics import DAY, MINUTE, declared
from tests.end_to_end.conftest import Away
from tests.end_to_end.lives import Person, ask, done, once, waits
from tests.end_to_end.searching import documents, found, is_kept, metrics, records
from tests.end_to_end.test_mail_notices import tell
from tests.end_to_end.test_operator import run
from tests.mailer.mailchimp_double import member_hash
from tests.personal_data import COLLECTIONS
from tests.stack import Stack, eventually

Client = MongoClient[dict[str, Any]]
WEEK: Final = 7 * DAY
"""So long may a service be away, and then still finds what it was told: no shorter retention keeps that promise."""
BRIEFLY: Final[dict[tuple[str, str], tuple[int, str]]] = {
    ("auth.commands", "auth.send-magic-link"): (WEEK, "the address that a link goes to"),
    ("auth.commands", "auth.create-trial-and-magic-link"): (WEEK, "the same"),
    ("auth.commands", "auth.send-trial-magic-link"): (WEEK, "the same"),
    ("auth.commands", "auth.send-phone-code"): (WEEK, "the number that a code goes to"),
    ("auth.commands", "auth.register-phone-user"): (WEEK, "the names that a person gives"),
    ("auth.commands", "auth.ensure-user"): (WEEK, "the address that Stripe has of a customer"),
    ("auth.events", "auth.identifier-verified"): (WEEK, "what was verified, for whoever listens"),
    ("billing.commands", "billing.start-trial"): (WEEK, "the address that Stripe is to have of a customer"),
    ("billing.commands", "billing.finish-trial"): (WEEK, "the same"),
    ("stripe.webhooks", "stripe.event"): (WEEK, "Stripe's own words, as they were signed"),
    ("gateway.replies", ""): (10 * MINUTE, "an answer on its way to whoever asked who somebody is"),
    # What others put there, Nest can only put aside, sealed.
    ("mailer.commands", "mailer.nobody-knows"): (WEEK, "this test's own"),
    ("stripe.webhooks", "stripe.unheard-of"): (WEEK, "this test's own"),
}
"""What names a person readably on Kafka: for how long, in milliseconds, and why at all."""


@pytest.mark.parametrize("written", ["{}", "x{}", "xy{}"])
def test_a_value_is_found_however_it_is_written(written: str) -> None:
    text = written.format("ada@example.com").encode()
    assert found("ada@example.com", text)
    assert found("ada@example.com", text.upper())
    assert found("ada@example.com", base64.b64encode(text + b"..."))
    assert found("ada@example.com", text.hex().encode())
    assert found("ada@example.com", text.replace(b"@", b"%40"))
    assert found("Öberg", json.dumps({"name": f"{written.format('')}Öberg"}).encode())
    assert found("ada@example.com", repr(hashlib.sha256(b"ada@example.com").digest()).encode())
    assert not found("ada@example.com", b"bda@example.com")


async def test_nothing_of_an_erased_person_is_left_though_all_were_away(
    away: Away, email: str, mongo_client: Client
) -> None:
    nest, mailchimp = away.nest, away.mailchimp
    person = Person(email)
    with person.at_home(nest):
        await person.come_for_a_trial(nest)
        await person.log_in_in_every_way(nest)
        await person.choose(nest)
        await person.use_the_phone(nest)
        await person.pay(nest)
        await person.leave_traces(nest, mongo_client)
        await person.order_a_link(nest)
    await eventually(lambda: mailchimp.status_of(email) == "subscribed", what="Mailchimp")
    await done(nest, await ask(nest, "export_user", user_id=person.user_id))
    before = documents(nest, mongo_client)
    for value in (email, person.number, person.first_name, person.ip):
        assert any(found(value, text) for text in before.values()), f"the search can't find {value}"
    assert {name: set(COLLECTIONS[name]) for name in COLLECTIONS} == {
        name: {each.partition(".")[2] for each in before if each.startswith(f"{name}.")} for name in COLLECTIONS
    }

    await nest.processes["mailer"].stop()
    mailchimp.always = 503
    processes = [
        await ask(nest, "erase_user", user_id=person.user_id, delete_stripe_customer=True),
        await ask(nest, "erase_user", user_id=person.phone_user_id),
    ]
    await nest.processes["mailer"].start()

    await once(nest, processes[0], lambda now: waits(now) == {"mailer": "mailchimp"})
    looked = await run(nest, "users", "erase", "--process", processes[0]["id"], "--wait", "1")
    assert (looked.code, "waiting for mailer (which waits for mailchimp: 503 Fault)" in looked.err) == (2, True)
    mailchimp.always = None
    for process in processes:
        await done(nest, process)
    assert (mailchimp.status_of(email), member_hash(email) in mailchimp.erased) == (None, True)

    with person.at_home(nest):
        await come_back(person, away)
    assert [each for each in nest.stripe.objects("customer") if each.get("email") == email] == []
    after = documents(nest, mongo_client)
    assert named_in(person, {**after, "auth.audit": attributed(nest, mongo_client)}) == []
    told = {f"log of {name}": process.log.encode() for name, process in nest.processes.items()}
    told |= {"metrics": await metrics(nest), "traces": b"\n".join(away.traces.bodies)}
    assert all(told.values())
    assert named_in(person, told) == []
    await nothing_is_on_topics_but_briefly(person, away)


def attributed(nest: Stack, mongo_client: Client) -> bytes:
    """The audit without the IP addresses of attempts that named no user and no login: whose they were nobody knows."""
    entries = mongo_client[nest.environment["NEST_DATABASE_PREFIX"] + "auth"]["audit"].find()
    nobodys = {"clientIp": None}
    return "\n".join(
        repr(entry if entry["userId"] or entry["sessionId"] else {**entry, **nobodys}) for entry in entries
    ).encode()


def named_in(person: Person, places: dict[str, bytes]) -> list[str]:
    """Where somebody can be read, and by what."""
    return [f"{value} in {name}" for name, text in places.items() for value in person.known_by if found(value, text)]


async def come_back(person: Person, away: Away) -> None:
    """All that comes late of somebody; none of it may bring them back."""
    nest = away.nest
    assert person.open_link is not None
    login, code = person.open_link
    late = await nest.call("authenticate_user", login.redemption(code))
    assert (late.status_code, late.json()["code"]) == (404, "token_not_found")
    consent = {"user_id": person.user_id, "level": "general"}
    bearer = f"bearer {person.tokens['access_token']}"
    assert (await nest.call("set_marketing_consent", consent, authorization=bearer)).status_code in {401, 404}
    assert (await nest.call("set_marketing_consent", consent, **nest.internal)).status_code == 404
    clicked = await nest.http.post(person.unsubscribe_path(nest), data={"List-Unsubscribe": "One-Click"})
    assert clicked.status_code == 200
    said = f"<{person.email}> nobody here"
    assert await tell(nest, "bounced", person.message_id, status="5.1.1", reason=said) == 200
    await nest.stripe.webhooks.drain(60)
    assert (await nest.call("get_user", {"user_id": person.user_id}, **nest.internal)).status_code == 404
    unknown = {"identifier_type": "email", "identifier_value": person.email}
    assert (await nest.call("find_user", unknown, **nest.internal)).status_code == 404
    waiting = await nest.call("get_marketing_consent", {"user_id": person.user_id}, **nest.internal)
    assert waiting.json()["code"] == "awaiting_consent"


async def nothing_is_on_topics_but_briefly(person: Person, away: Away) -> None:
    """Compacted topics and dead letters name nobody; the others only where it is said why, and not for long.

    Whatever was asked for says for so long from which IP address, since limits and the audit need it.
    """
    topics = {topic.name: topic for topic in declared()}
    read = await records(away.nest, topics.values())
    assert (
        named_in(
            person,
            {f"{each.topic} {number}": each.text for number, each in enumerate(read) if is_kept(topics[each.topic])},
        )
        == []
    )
    names = [value for value in person.known_by if value != person.ip]
    named = {(each.topic, each.wire) for each in read if any(found(value, each.text) for value in names)}
    assert sorted(named ^ set(BRIEFLY)) == []
    for (topic, _), (retention, _) in BRIEFLY.items():
        assert (topics[topic].retention, is_kept(topics[topic])) == (retention, False), topic
