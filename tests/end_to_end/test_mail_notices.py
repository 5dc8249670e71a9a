"""What becomes of a mail after it was handed over: told by its provider, or ended by its reader's click."""

import asyncio
import hashlib
import hmac
import json
import time
from typing import Any

from pymongo import MongoClient

from shared.mail import unsubscribe_token
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.stack import MAIL_SECRET, Login, Stack, eventually

Client = MongoClient[dict[str, Any]]


async def delivery(nest: Stack, mongo_client: Client, email: str, template: str) -> dict[str, Any]:
    """The newest delivery of a template to an address, once there is one."""
    sealer = Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"]))
    hashed = sealer.keyed_hash("recipient", email.encode())
    rows = mongo_client[f"{nest.environment['NEST_DATABASE_PREFIX']}mailer"]["deliveries"]
    found: dict[str, Any] = await eventually(
        lambda: rows.find_one({"recipientHash": hashed, "template": template}, sort=[("createdAt", -1)])
    )
    return found


async def tell(nest: Stack, event: str, message_id: str, **more: str) -> int:
    body = json.dumps({"event": event, "message_id": message_id, **more}).encode()
    now = int(time.time())
    digest = hmac.new(MAIL_SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"nest-signature": f"t={now},v1={digest}"}
    return (await nest.http.post("/1/webhook/mail", content=body, headers=headers)).status_code


async def test_an_address_that_bounced_gets_links_and_nothing_else_until_mail_arrives_there_again(
    nest: Stack, mongo_client: Client, email: str
) -> None:
    await nest.log_in(email)
    first = await delivery(nest, mongo_client, email, "magic-link")
    assert first["state"] == "handed_over"
    assert await tell(nest, "bounced", first["messageId"], status="5.1.1", reason="no such user") == 200

    async def bounced() -> bool:
        return (await delivery(nest, mongo_client, email, "magic-link"))["state"] == "bounced"

    await eventually(bounced)
    device = {"platform": "mac", "beak_id": f"beak-{email}", "fingerprint": f"print-{email}"}
    assert (await nest.call("create_trial_and_magic_link", Login(email).order(device=device))).status_code == 204
    await nest.mail(email, count=2)
    assert (await delivery(nest, mongo_client, email, "welcome-trial"))["state"] == "suppressed"
    link = await delivery(nest, mongo_client, email, "trial-magic-link")
    assert link["state"] == "handed_over"
    assert len(nest.inbox.arrivals(email)) == 2
    assert await tell(nest, "delivered", link["messageId"]) == 200
    suppressed = mongo_client[f"{nest.environment['NEST_DATABASE_PREFIX']}mailer"]["suppressions"]
    await eventually(lambda: suppressed.count_documents({"_id": link["recipientHash"]}) == 0)


async def test_an_operator_has_mails_go_to_an_address_again(nest: Stack, mongo_client: Client, email: str) -> None:
    await nest.log_in(email)
    first = await delivery(nest, mongo_client, email, "magic-link")
    assert await tell(nest, "complained", first["messageId"]) == 200

    async def listed() -> list[dict[str, Any]]:
        answer = await nest.call("list_suppressions", {"recipient": email.upper()}, **nest.internal)
        assert email not in answer.text
        found: list[dict[str, Any]] = answer.json()["suppressions"]
        return found

    [suppressed] = await eventually(listed)
    assert (suppressed["delivery_id"], suppressed["cause"]) == (first["_id"], "complaint")
    refused = await nest.call("lift_suppression", {"recipient": email}, **nest.internal)
    assert (refused.status_code, refused.json()["code"]) == (409, "recipient_complained")
    agreed = {"recipient": email, "although_complained": True}
    lifted = await nest.call("lift_suppression", agreed, **nest.internal)
    assert (lifted.status_code, lifted.json()["delivery_id"]) == (200, first["_id"])
    assert await listed() == []


async def test_of_a_consent_set_from_three_places_at_once_all_is_kept_and_the_last_choice_stands(
    nest: Stack, mongo_client: Client, email: str
) -> None:
    tokens = await nest.log_in(email)
    user_id, bearer = tokens["user_id"], f"bearer {tokens['access_token']}"
    chosen = {"user_id": user_id, "level": "general"}
    link = f"/unsubscribe/{unsubscribe_token(Sealer(parse_keys(nest.environment['NEST_SEALING_KEYS'])), user_id)}"
    answers = await asyncio.gather(
        nest.call("set_marketing_consent", chosen, authorization=bearer),
        nest.http.post(link),
        nest.call("set_marketing_consent", chosen, **nest.internal),
    )
    assert [answer.status_code for answer in answers] == [204, 200, 204]
    mailer = mongo_client[f"{nest.environment['NEST_DATABASE_PREFIX']}mailer"]
    rows = list(mailer["marketing_consent_changes"].find({"userId": user_id}).sort("number"))
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert {(row["source"], row["level"], row["caller"]["kind"]) for row in rows} == {
        ("user", "general", "user"),
        ("unsubscribe-link", "none", "anonymous"),
        ("internal", "general", "internal"),
    }
    answer = await nest.call("get_marketing_consent", {"user_id": user_id}, authorization=bearer)
    assert answer.json()["level"] == rows[-1]["level"]


async def test_one_click_ends_the_news_without_a_login(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    user_id, bearer = tokens["user_id"], f"bearer {tokens['access_token']}"
    await nest.call("set_marketing_consent", {"user_id": user_id, "level": "general"}, authorization=bearer)
    sealer = Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"]))
    path = f"/unsubscribe/{unsubscribe_token(sealer, user_id)}"

    async def level() -> str:
        answer = await nest.call("get_marketing_consent", {"user_id": user_id}, authorization=bearer)
        return str(answer.json()["level"])

    assert "Unsubscribe" in (await nest.http.get(path)).text
    assert await level() == "general"
    answer = await nest.http.post(path, data={"List-Unsubscribe": "One-Click"})
    assert (answer.status_code, await level()) == (200, "none")
