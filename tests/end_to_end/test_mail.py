"""Mails after they were sent, as operators see them, and a client's branding."""

from __future__ import annotations

import json
from typing import Any

from services.embedded.demo import CLIENT_ID
from tests.end_to_end.flows import Mongo, database, device_of, find_delivery, redeem_trial, report_mail
from tests.stack import REDIRECT_URI, Login, Stack, eventually


async def test_bounced_address_gets_only_links_until_a_delivery(nest: Stack, mongo_client: Mongo, email: str) -> None:
    await nest.log_in(email)
    first = await find_delivery(nest, mongo_client, email, "magic-link")
    assert first["state"] == "handed_over"
    assert await report_mail(nest, "bounced", first["messageId"], status="5.1.1", reason="no such user") == 200

    async def bounced() -> bool:
        return (await find_delivery(nest, mongo_client, email, "magic-link"))["state"] == "bounced"

    await eventually(bounced, what="the bounce")
    await redeem_trial(nest, Login(email))
    assert (await find_delivery(nest, mongo_client, email, "welcome-trial"))["state"] == "suppressed"
    link = await find_delivery(nest, mongo_client, email, "trial-magic-link")
    assert link["state"] == "handed_over"
    assert len(nest.inbox.arrivals(email)) == 2
    assert await report_mail(nest, "delivered", link["messageId"]) == 200
    suppressions = database(nest, mongo_client, "mailer")["suppressions"]
    await eventually(
        lambda: suppressions.count_documents({"_id": link["recipientHash"]}) == 0, what="the end of the suppression"
    )


async def test_operator_lifts_the_suppression_of_a_complaint(nest: Stack, mongo_client: Mongo, email: str) -> None:
    await nest.log_in(email)
    first = await find_delivery(nest, mongo_client, email, "magic-link")
    assert await report_mail(nest, "complained", first["messageId"]) == 200

    async def listed() -> list[dict[str, Any]]:
        response = await nest.call("list_suppressions", {"recipient": email.upper()}, **nest.internal)
        assert email not in response.text
        found: list[dict[str, Any]] = response.json()["suppressions"]
        return found

    [suppression] = await eventually(listed, what="the suppression")
    assert (suppression["delivery_id"], suppression["cause"]) == (first["_id"], "complaint")
    refused = await nest.call("lift_suppression", {"recipient": email}, **nest.internal)
    assert (refused.status_code, refused.json()["code"]) == (409, "recipient_complained")
    confirmed = {"recipient": email, "although_complained": True}
    lifted = await nest.call("lift_suppression", confirmed, **nest.internal)
    assert (lifted.status_code, lifted.json()["delivery_id"]) == (200, first["_id"])
    assert await listed() == []


async def test_command_finds_deliveries_without_showing_addresses(nest: Stack, email: str) -> None:
    await nest.log_in(email)
    await nest.log_in(email.replace("ada", "ada.second"))
    listed = await nest.command("deliveries", "list", "--to", email.upper(), "--json")
    assert (listed.code, listed.err) == (0, "")
    (mail,) = json.loads(listed.out)["deliveries"]
    assert (mail["medium"], mail["template"], mail["state"], mail["attempts"]) == (
        "mail",
        "magic-link",
        "handed_over",
        1,
    )
    assert "@example.com" not in listed.out.replace(mail["message_id"], "")
    assert email not in listed.out
    unknown_option = await nest.command("deliveries", "list", "--to", email, "--channel", "mail")
    assert unknown_option.code == 2
    table = await nest.command("deliveries", "list", "--to", email, "--medium", "mail")
    assert [line.split("\t")[2] for line in table.out.splitlines()] == ["TEMPLATE", "magic-link"]


async def test_deliveries_are_filtered_and_listed_in_pages(nest: Stack, email: str) -> None:
    for _ in range(3):
        await nest.log_in(email)
    ids, cursor = [], None
    while True:
        body = {"recipient": email, "limit": 2, "cursor": cursor}
        page = (await nest.call("list_deliveries", body, **nest.internal)).json()
        ids += [each["id"] for each in page["deliveries"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(ids) == len(set(ids)) == 3
    for filters, count in (
        ({"state": "failed"}, 0),
        ({"medium": "text"}, 0),
        ({"template": "magic-link", "since": "2020-01-01T00:00:00Z"}, 3),
        ({"until": "2020-01-01T00:00:00Z"}, 0),
        ({"client_id": "client_missing"}, 0),
    ):
        response = await nest.call("list_deliveries", {"recipient": email, **filters}, **nest.internal)
        assert len(response.json()["deliveries"]) == count, filters


async def test_mail_about_a_payment_waits_while_auth_is_away(separate: Stack, mongo_client: Mongo, email: str) -> None:
    """Auth knows the app whose branding it shows: the one that its recipient last logged in to."""
    nest = separate
    await nest.log_in(email)
    handled = database(nest, mongo_client, "mailer")["inbox"]
    await nest.processes["auth"].stop()
    before = handled.count_documents({})
    try:
        made = nest.stripe.simulate.checkout(
            nest.environment["NEST_STRIPE_TRIAL_PRICE"], email=email, payment_method="pm_card_chargeCustomerFail"
        )
        nest.stripe.simulate.retry_payment(made["id"])
        await eventually(lambda: handled.count_documents({}) > before, what="the order of the mail")
        assert len(nest.inbox.arrivals(email)) == 1
    finally:
        await nest.processes["auth"].start()
    await nest.mail(email, subject="did not go through")
    assert (await find_delivery(nest, mongo_client, email, "payment-failed"))["clientId"] == CLIENT_ID
    assert len(nest.inbox.arrivals(email)) == 2


async def test_mails_have_the_branding_and_language_of_their_client(nest: Stack, email: str) -> None:
    client_id = (await nest.create_client())["id"]
    login = {"client_id": client_id, "redirect_uri": REDIRECT_URI}
    branding = {
        "client_id": client_id,
        "product_name": "Bëak",
        "sender_name": "Bëak",
        "sender_address": "b@example.com",
    }
    refused = await nest.call("set_client_looks", branding)
    assert (refused.status_code, refused.json()["code"]) == (403, "access_denied")
    unknown = await nest.call("set_client_looks", {"client_id": "client_missing"}, **nest.internal)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "client_not_found")
    wrong = await nest.call("set_client_looks", {**branding, "accent_colour": "red"}, **nest.internal)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "validation_failed")

    response = await nest.call("set_client_looks", {**branding, "locale": "de"}, **nest.internal)
    assert response.status_code == 200, response.text
    assert response.json() == (await nest.call("get_client_looks", {"client_id": client_id}, **nest.internal)).json()
    assert response.json()["shown"]["sender"] == "Bëak <b@example.com>"

    async def german() -> bool:
        await nest.code(Login(email, **login))
        return bool([each for each in nest.inbox.arrivals(email) if each.subject == "Bei Bëak anmelden"])

    await eventually(german, what="a mail in German")
    for method in ("send_magic_link", "create_trial_and_magic_link"):
        body = Login(email, **login).request(
            locale="es_MX.UTF-8", device={"platform": "web", "device_id": email, "fingerprint": email}
        )
        requested = await nest.call(method, body)
        assert requested.status_code == 204, requested.text
    await nest.mail(email, subject="Inicia sesión en Bëak")
    await nest.mail(email, subject="Tu prueba de Bëak está lista")
    # The mail of the subscription, whose command contains neither client nor language, as the redeemed link.
    tokens = await redeem_trial(nest, Login(email, **login), device_of(email), locale="es_MX.UTF-8")
    assert tokens["client_id"] == client_id
    await nest.mail(email, subject="Tu prueba de Bëak ha comenzado")
    unreadable = await nest.call("send_magic_link", Login(email, **login).request(locale="<script>"))
    assert unreadable.status_code == 204
