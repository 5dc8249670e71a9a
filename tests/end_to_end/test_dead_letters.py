"""Dead letters of a whole Nest: seen, and handled after all, by the nest command."""

import asyncio
import json
from pathlib import Path

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.producer import Producer
from shared.ids import new_message_id
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.end_to_end.lives import ask, done
from tests.end_to_end.searching import found, kept_records
from tests.end_to_end.test_operator import run
from tests.stack import Stack, eventually


async def put(nest: Stack, *records: tuple[bytes, list[tuple[str, bytes]]], topic: str = "mailer.commands") -> None:
    producer = Producer(nest.environment["NEST_KAFKA_BOOTSTRAP"], prefix=nest.environment["NEST_TOPIC_PREFIX"])
    await producer.start()
    try:
        for value, headers in records:
            await producer.send_record(topic, value, headers, key=b"k")
    finally:
        await producer.stop()


async def waiting(nest: Stack, count: int, **wanted: str) -> list[dict[str, object]]:
    async def there() -> list[dict[str, object]]:
        answer = await nest.call("list_dead_letters", {"filter": wanted}, **nest.internal)
        letters: list[dict[str, object]] = answer.json()["letters"]
        return letters if len(letters) == count else []

    there_are: list[dict[str, object]] = await eventually(there, what=f"{count} dead letters")
    return there_are


async def test_poison_is_seen_shown_and_replayed(nest: Stack, tmp_path: Path) -> None:
    poison = [(b"\xff\xfe", [("type", b"mailer.poison")]), (b"x" * 700_000, [("type", b"mailer.poison")])]
    await put(nest, *poison)
    await waiting(nest, 2, type="mailer.poison")
    listed = await run(nest, "dead", "list", "--type", "mailer.poison")
    assert (listed.code, listed.err) == (0, "")
    title, large, small = (line.split("\t") for line in listed.out.splitlines())
    assert title[1:4] == ["LETTER", "SERVICE", "REASON"]
    assert large[2:4] == small[2:4] == ["mailer", "undecodable"]
    for letter, (body, _) in zip((small[1], large[1]), poison, strict=True):
        shown = await run(nest, "dead", "show", letter, "--body-to", str(tmp_path / "body"))
        assert (shown.code, shown.err) == (0, "")
        assert "undecodable" in shown.out
        assert (tmp_path / "body").read_bytes() == body
    done = await run(nest, "dead", "replay", large[1], small[1])
    assert (done.code, done.out) == (0, "2 replayed\n")
    # They die once more, and are letters of their own.
    await waiting(nest, 4, type="mailer.poison")
    again = await run(nest, "dead", "replay", "--all", "--type", "mailer.poison", "--json")
    assert [each["outcome"] for each in json.loads(again.out)["letters"]] == [
        "replayed_before", "replayed_before", "replayed", "replayed",
    ]  # fmt: skip


async def test_what_is_too_old_is_done_when_that_is_meant(nest: Stack, email: str) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    sealer = Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"]))
    order = RecordMarketingConsent(user_id=user_id, level="general", source="user")
    envelope = Envelope(
        id=new_message_id(),
        wire=order.wire,
        topic=order.topic,
        key=user_id,
        body=encode(order, sealer),
        time=unix_milliseconds() - 9 * 24 * 3600 * 1000,
    )
    await put(nest, (envelope.body, envelope.headers()))
    await waiting(nest, 1, reason="too_old")
    words = ("dead", "replay", "--all", "--reason", "too_old")
    assert "1 skipped: older than the inbox" in (await run(nest, *words)).out
    unsaid = await run(nest, *words, "--although-too-old")
    assert unsaid.code == 1
    assert "no longer knows" in unsaid.err
    assert (await run(nest, *words, "--although-too-old", "--yes")).out == "1 replayed\n"

    async def given() -> bool:
        answer = await nest.call("get_marketing_consent", {"user_id": user_id}, **nest.internal)
        return answer.status_code == 200 and answer.json() == {"level": "general"}

    await eventually(given, what="the consent")


async def test_of_somebody_erased_no_letter_is_left(nest: Stack, email: str) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    customer = json.dumps({"data": {"object": {"customer_email": email}}}).encode()
    await put(nest, (customer, [("type", b"stripe.published_of-of")]), topic="stripe.webhooks")
    await put(nest, (email.encode(), [("type", b"mailer.published_of-to"), ("from", email.encode())]))
    await put(nest, (b"about nobody", [("type", b"mailer.published_of-to")]))
    await waiting(nest, 1, type="stripe.published_of-of")
    letters = await waiting(nest, 2, type="mailer.published_of-to")
    assert [email in json.dumps(letter) for letter in letters] == [False, True]
    assert not any(found(email, text) for text in (await kept_records(nest)).values())

    await done(nest, await ask(nest, "erase_user", user_id=user_id))

    assert await waiting(nest, 1, type="mailer.published_of-to") == letters[:1]
    assert (await ask(nest, "list_dead_letters", filter={"type": "stripe.published_of-of"}))["letters"] == []
    gone = await run(nest, "dead", "replay", str(letters[1]["id"]))
    assert (gone.code, gone.out) == (0, "1 not found (any more)\n")


async def test_what_a_person_may_get_wrong_is_said(nest: Stack) -> None:
    gone, both, none = await asyncio.gather(
        run(nest, "dead", "show", "mailer.commands.999999"),
        run(nest, "dead", "replay", "mailer.commands.1", "--all"),
        run(nest, "dead", "replay"),
    )
    assert (gone.code, len(gone.err.splitlines())) == (1, 1)
    assert "dead_letter_not_found" in gone.err
    for refused in (both, none):
        assert refused.code == 2
        assert "give letters, or --all" in refused.err
