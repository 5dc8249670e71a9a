"""What a client's mails look like, in whose language, and how far a consent is carried."""

from collections.abc import AsyncIterator, Callable

import pytest

from services.embedded.demo import CLIENT_ID
from tests.mailer.mailchimp_double import KEY, LIST, MailchimpDouble
from tests.stack import Login, Stack, eventually, running_stack


@pytest.fixture(scope="module")
async def double() -> AsyncIterator[MailchimpDouble]:
    async with MailchimpDouble() as double:
        yield double


@pytest.fixture(scope="module")
async def nest(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    kafka_bootstrap: str,
    mongo_url: str,
    unique: Callable[[], str],
    double: MailchimpDouble,
) -> AsyncIterator[Stack]:
    """A Nest that carries consents."""
    prefix = unique()
    mailchimp = {
        "NEST_MAILCHIMP_API_KEY": KEY,
        "NEST_MAILCHIMP_LIST_ID": LIST,
        "NEST_MAILCHIMP_API_BASE": double.url,
    }
    async with running_stack(
        tmp_path_factory.mktemp("nest"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        settings=mailchimp,
    ) as stack:
        yield stack


async def test_a_client_gets_looks_and_its_mails_wear_them(nest: Stack, email: str) -> None:
    looks = {"client_id": CLIENT_ID, "product_name": "Bëak", "sender_name": "Bëak", "sender_address": "b@example.com"}
    refused = await nest.call("set_client_looks", looks)
    assert (refused.status_code, refused.json()["code"]) == (403, "access_denied")
    unknown = await nest.call("set_client_looks", {"client_id": "client_nobody"}, **nest.internal)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "client_not_found")
    wrong = await nest.call("set_client_looks", {**looks, "accent_colour": "red"}, **nest.internal)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "validation_failed")

    answer = await nest.call("set_client_looks", {**looks, "locale": "de"}, **nest.internal)
    assert answer.status_code == 200, answer.text
    assert answer.json() == (await nest.call("get_client_looks", {"client_id": CLIENT_ID}, **nest.internal)).json()
    assert answer.json()["shown"]["sender"] == "Bëak <b@example.com>"

    async def german() -> bool:
        await nest.code(Login(email))
        return bool([each for each in nest.inbox.arrivals(email) if each.subject == "Bei Bëak anmelden"])

    await eventually(german, what="a mail in German")
    for call in ("send_magic_link", "create_trial_and_magic_link"):
        device = {"fingerprint": email}
        ordered = await nest.call(call, Login(email).order(locale="es-MX", device=device))
        assert ordered.status_code == 204, ordered.text
    await nest.mail(email, subject="Inicia sesión en Bëak")
    await nest.mail(email, subject="Tu prueba de Bëak está lista")
    # Of a subscription, which names no app and no language.
    await nest.mail(email, subject="Tu prueba de Bëak ha comenzado")
    nobody = await nest.call("send_magic_link", Login(email).order(locale="<script>"))
    assert (nobody.status_code, nobody.json()["code"]) == (422, "validation_failed")


async def test_consents_reach_mailchimp_and_the_latest_stands(nest: Stack, email: str, double: MailchimpDouble) -> None:
    tokens = await nest.log_in(email)
    body = {"user_id": tokens["user_id"]}
    bearer = f"bearer {tokens['access_token']}"
    # The first two tries fail, one of them after it was carried out.
    double.faults.extend([503, "done-500"])
    for level in ("general", "none", "general"):
        stored = await nest.call("set_marketing_consent", {**body, "level": level}, authorization=bearer)
        assert stored.status_code == 204
    await eventually(lambda: double.status_of(email) == "subscribed", what="subscribed")
    stored = await nest.call("set_marketing_consent", {**body, "level": "none"}, **nest.internal)
    await eventually(lambda: double.status_of(email) == "unsubscribed", what="unsubscribed")
    known = await nest.call("get_marketing_consent", body, authorization=bearer)
    assert known.json() == {"level": "none"}
