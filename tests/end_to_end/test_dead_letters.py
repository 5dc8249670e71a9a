"""Dead letters by the `nest` command: listed, shown, replayed, and removed by an erasure."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.ids import new_message_id
from shared.messages.mailer.consents import RecordMarketingConsent
from tests.end_to_end.flows import finished, operator_call, publish, sealer_of
from tests.end_to_end.search import found, permanent_records
from tests.stack import Stack, eventually


async def dead_letters(nest: Stack, count: int, **filters: str) -> list[dict[str, object]]:
    """Wait until so many dead letters match, and return them."""

    async def listed() -> list[dict[str, object]]:
        letters: list[dict[str, object]] = (await operator_call(nest, "list_dead_letters", filter=filters))["letters"]
        return letters if len(letters) == count else []

    letters: list[dict[str, object]] = await eventually(listed, what=f"{count} dead letters")
    return letters


async def test_poison_is_listed_shown_and_replayed(nest: Stack, tmp_path: Path) -> None:
    poison = [(b"\xff\xfe", [("type", b"mailer.poison")]), (b"x" * 700_000, [("type", b"mailer.poison")])]
    await publish(nest, *poison, topic="mailer.commands")
    await dead_letters(nest, 2, type="mailer.poison")
    listed = await nest.command("dead", "list", "--type", "mailer.poison")
    assert (listed.code, listed.err) == (0, "")
    title, large, small = (line.split("\t") for line in listed.out.splitlines())
    assert title[1:4] == ["LETTER", "SERVICE", "REASON"]
    assert large[2:4] == small[2:4] == ["mailer", "undecodable"]
    for letter, (body, _) in zip((small[1], large[1]), poison, strict=True):
        shown = await nest.command("dead", "show", letter, "--body-to", str(tmp_path / "body"))
        assert (shown.code, shown.err) == (0, "")
        assert "undecodable" in shown.out
        assert (tmp_path / "body").read_bytes() == body
    replayed = await nest.command("dead", "replay", large[1], small[1])
    assert (replayed.code, replayed.out) == (0, "2 replayed\n")
    # They fail again and become two more dead letters.
    await dead_letters(nest, 4, type="mailer.poison")
    again = await nest.command("dead", "replay", "--all", "--type", "mailer.poison", "--json")
    assert [each["outcome"] for each in json.loads(again.out)["letters"]] == [
        "replayed_before", "replayed_before", "replayed", "replayed",
    ]  # fmt: skip


async def test_too_old_command_is_replayed_after_confirmation(nest: Stack, email: str) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    command = RecordMarketingConsent(user_id=user_id, level="general", source="user")
    envelope = Envelope(
        id=new_message_id(),
        wire=command.wire,
        topic=command.topic,
        key=user_id,
        body=encode(command, sealer_of(nest)),
        time=unix_milliseconds() - 9 * 24 * 3600 * 1000,
    )
    await publish(nest, (envelope.body, envelope.headers()), topic="mailer.commands")
    await dead_letters(nest, 1, reason="too_old")
    replay = ("dead", "replay", "--all", "--reason", "too_old")
    assert "1 skipped: older than the inbox" in (await nest.command(*replay)).out
    unconfirmed = await nest.command(*replay, "--although-too-old")
    assert unconfirmed.code == 2
    assert "no longer knows" in unconfirmed.err
    assert (await nest.command(*replay, "--although-too-old", "--yes")).out == "1 replayed\n"

    async def consented() -> bool:
        response = await nest.call("get_marketing_consent", {"user_id": user_id}, **nest.internal)
        return response.status_code == 200 and response.json() == {"level": "general"}

    await eventually(consented, what="the consent")


async def test_erasure_removes_the_dead_letters_of_a_user(nest: Stack, email: str) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    event = json.dumps({"data": {"object": {"customer_email": email}}}).encode()
    await publish(nest, (event, [("type", b"stripe.of-user")]), topic="stripe.webhooks")
    await publish(
        nest,
        (email.encode(), [("type", b"mailer.of-user"), ("from", email.encode())]),
        (b"about nobody", [("type", b"mailer.of-user")]),
        topic="mailer.commands",
    )
    await dead_letters(nest, 1, type="stripe.of-user")
    letters = await dead_letters(nest, 2, type="mailer.of-user")
    assert [email in json.dumps(letter) for letter in letters] == [False, True]
    assert not any(found(email, text) for text in (await permanent_records(nest)).values())

    await finished(nest, await operator_call(nest, "erase_user", user_id=user_id))

    assert await dead_letters(nest, 1, type="mailer.of-user") == letters[:1]
    assert (await operator_call(nest, "list_dead_letters", filter={"type": "stripe.of-user"}))["letters"] == []
    removed = await nest.command("dead", "replay", str(letters[1]["id"]))
    assert (removed.code, removed.out) == (0, "1 not found (any more)\n")


async def test_wrong_arguments_are_refused(nest: Stack) -> None:
    missing, both, none = await asyncio.gather(
        nest.command("dead", "show", "mailer.commands.999999"),
        nest.command("dead", "replay", "mailer.commands.1", "--all"),
        nest.command("dead", "replay"),
    )
    assert (missing.code, len(missing.err.splitlines())) == (1, 1)
    assert "dead_letter_not_found" in missing.err
    for refused in (both, none):
        assert refused.code == 2
        assert "give letters, or --all" in refused.err
