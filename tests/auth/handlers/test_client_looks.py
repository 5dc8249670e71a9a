"""Looks are for apps that there are, and an address is told to mailer alone, and only once it is proven."""

from shared.ids import new_message_id
from shared.messages.auth.branding import SetClientLooks
from shared.messages.auth.users import EnsureUser, FindConsentAddress, UserEnsured
from shared.messages.mailer.branding import ClientLooks, RecordClientLooks
from shared.messages.mailer.consents import CarryMarketingConsent
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import ADDRESS, CLIENT, logged_in, refusal, send_magic_link
from tests.desk import Desk


async def test_set_client_looks_has_mailer_record_them(desk: Desk) -> None:
    order = SetClientLooks(key=CLIENT, client_id=CLIENT, accent_colour="#0a7d4f", locale="de")
    for _ in range(2):
        assert await desk.perform(order, id="ab" * 16) is None
    [recorded] = desk.said(RecordClientLooks)
    assert recorded.client_id == CLIENT
    assert recorded.looks == ClientLooks(accent_colour="#0a7d4f", locale="de")
    assert [(entry.action, entry.client_id) for entry in desk.audited] == [("set_client_looks", CLIENT)]


async def test_set_client_looks_of_nobody_is_refused(desk: Desk) -> None:
    assert await refusal(desk, SetClientLooks(client_id="client_x")) == ("not_found", "client_not_found")
    assert desk.said(RecordClientLooks) == []


async def test_the_language_that_was_asked_for_goes_with_the_mail(desk: Desk) -> None:
    await desk.perform(send_magic_link(locale="de-AT"))
    assert [mail.locale for mail in desk.said(SendMail)] == ["de-AT"]


async def test_find_consent_address_orders_the_consent_carried_to_it(desk: Desk) -> None:
    user_id = (await logged_in(desk))["user_id"]
    order = FindConsentAddress(key=user_id, user_id=user_id, consent_version=3)
    for _ in range(2):
        await desk.perform(order, id="cd" * 16)
    [carried] = desk.said(CarryMarketingConsent)
    assert desk.reveal("mailer", carried.address) == ADDRESS
    assert (carried.user_id, carried.consent_version, carried.attempt) == (user_id, 3, 1)


async def test_an_address_that_is_not_proven_is_told_nobody(desk: Desk) -> None:
    await desk.perform(EnsureUser(reference="cus_1", email="new@example.com"), id=new_message_id())
    [ensured] = desk.said(UserEnsured)
    for user_id in (ensured.user_id, "user_nobody"):
        desk.clear()
        await desk.perform(FindConsentAddress(key=user_id, user_id=user_id, consent_version=1))
        [carried] = desk.said(CarryMarketingConsent)
        assert carried.address is None
