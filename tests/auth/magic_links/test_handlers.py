import hashlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.bus.consumer_lag import Lag
from shared.ids import new_message_id
from shared.messages.auth.magic_links import (
    CreateTrialAndMagicLink,
    ResendMagicLink,
    SendMagicLink,
    SendTrialMagicLink,
    TrialDevice,
)
from shared.messages.auth.users import EnsureUser, UserCreated
from shared.messages.billing.trials import StartTrial
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import (
    ADDRESS,
    CHALLENGE,
    CLIENT,
    LINK_REQUEST,
    REDIRECT_URI,
    code_of,
    disable_client,
    log_in,
    mailed_link,
    redemption,
    refusal,
    request_code,
    request_typed_code,
    send_magic_link,
)
from tests.service_harness import Refused, ServiceHarness

DEVICE = TrialDevice(platform="mac", beak_id="beak-1", fingerprint="f-1")


def create_trial(**changed: Any) -> CreateTrialAndMagicLink:
    return CreateTrialAndMagicLink(**{**LINK_REQUEST, "device": DEVICE, **changed})


def send_trial_link(**changed: Any) -> SendTrialMagicLink:
    return SendTrialMagicLink(**{**LINK_REQUEST, **changed})


async def test_send_magic_link_orders_one_mail_with_the_link(harness: ServiceHarness) -> None:
    assert await harness.deliver(send_magic_link(state="a&b=ü")) is None
    [mail] = harness.published
    assert isinstance(mail, SendMail)
    assert mail.template == "magic-link"
    assert mail.client_id == CLIENT
    assert harness.unseal_secret("mailer", mail.to) == ADDRESS
    variables = harness.variables_of(mail)
    document = await harness.database["authorizations"].find_one({})
    key = variables["link"].rpartition(".")[2]
    assert variables == {
        "link": f"{REDIRECT_URI}?state=a%26b%3D%C3%BC&code={document['_id']}.{key}",
        "minutes": 10,
        "code": None,
        "code_minutes": None,
        "press": False,
    }
    assert mail.expires_at == document["createdAt"] + timedelta(minutes=5), "half of the lifetime"
    assert len(key) == 64
    assert document["key"] == hashlib.sha256(key.encode()).hexdigest()


async def test_send_magic_link_stores_the_documented_fields(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link(device=DEVICE))
    document = await harness.database["authorizations"].find_one({})
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    assert document.pop("_id").startswith("test_authzcode_")
    assert len(document.pop("key")) == 64
    assert document == {
        "clientId": CLIENT,
        "state": "a state",
        "codeChallengeMethod": "S256",
        "codeChallenge": CHALLENGE,
        "redirectUri": REDIRECT_URI,
        "identifierType": "email",
        "identifierValue": ADDRESS,
        "device": {"platform": "mac", "beakId": "beak-1", "fingerprint": "f-1"},
        "createdAt": now,
        "expiresAt": now + timedelta(minutes=10),
        "usedAt": None,
        "revokedAt": None,
        "wrongVerifiers": 0,
        "trial": False,
        "typedCode": None,
        "version": 1,
    }


async def test_inbox_row_contains_no_readable_address_or_key(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link())
    [mail] = harness.published
    key = mailed_link(harness, mail).split(".")[-1].split("&")[0]
    row = await harness.database["inbox"].find_one({"messages": {"$ne": []}})
    body = row["messages"][0]["body"]
    assert key.encode() not in body
    assert ADDRESS.encode() not in body


async def test_second_delivery_of_send_magic_link_sends_no_second_link(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(send_magic_link(), id=message_id)
    assert len(harness.published) == 1
    assert await harness.database["authorizations"].count_documents({}) == 1


async def test_send_magic_link_treats_known_and_unknown_addresses_alike(harness: ServiceHarness) -> None:
    await log_in(harness)
    harness.clear()
    for address in (ADDRESS, "unknown@example.com"):
        assert await harness.deliver(send_magic_link(identifier_value=address)) is None
    assert [type(message) for message in harness.published] == [SendMail, SendMail]


async def test_address_is_stored_and_mailed_in_normal_form(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link(identifier_value="Ana@Bücher.Example"))
    document = await harness.database["authorizations"].find_one({})
    assert document["identifierValue"] == "ana@xn--bcher-kva.example"
    assert harness.unseal_secret("mailer", harness.published[0].to) == "ana@xn--bcher-kva.example"  # type: ignore[attr-defined]


async def test_lifetime_of_a_link_is_a_setting(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness
) -> None:
    async with new_harness(authorization_minutes=20) as longer:
        await longer.deliver(send_magic_link())
        [mail] = longer.published_of(SendMail)
        assert longer.variables_of(mail)["minutes"] == 20
        document = await longer.database["authorizations"].find_one({})
        assert document["expiresAt"] - document["createdAt"] == timedelta(minutes=20)


async def test_query_of_the_redirect_uri_is_kept(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link(redirect_uri=f"{REDIRECT_URI}/two?a=b"))
    assert mailed_link(harness, harness.published_of(SendMail)[0]).startswith(f"{REDIRECT_URI}/two?a=b&state=")


REFUSED = [
    ({"client_id": "client_unknown"}, "not_found", "client_not_found"),
    ({"redirect_uri": f"{REDIRECT_URI}/"}, "invalid", "invalid_redirect_uri"),
    ({"redirect_uri": REDIRECT_URI.upper()}, "invalid", "invalid_redirect_uri"),
    ({"redirect_uri": ""}, "invalid", "invalid_redirect_uri"),
    ({"identifier_value": "ana"}, "invalid", "invalid_email"),
    ({"identifier_value": ""}, "invalid", "invalid_email"),
    ({"identifier_value": "ana@localhost"}, "invalid", "invalid_email"),
    ({"identifier_value": "ana@example.com\r\nBcc: b@example.com"}, "invalid", "invalid_email"),
    ({"identifier_value": "taro.@docomo.ne.jp"}, "invalid", "invalid_email"),
    ({"identifier_value": "ta..ro@docomo.ne.jp"}, "invalid", "invalid_email"),
    ({"identifier_value": "a" * 400 + "@example.com"}, "invalid", "invalid_email"),
]


@pytest.mark.parametrize("request_link", [send_magic_link, create_trial, send_trial_link])
@pytest.mark.parametrize(("changed", "kind", "code"), REFUSED)
async def test_request_for_a_link_is_refused(
    harness: ServiceHarness, request_link: Callable[..., SendMagicLink], changed: dict[str, Any], kind: str, code: str
) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(request_link(**changed))
    assert (refused.value.kind, refused.value.code) == (kind, code)
    assert harness.published == []
    assert await harness.database["authorizations"].count_documents({}) == 0
    assert await harness.database["users"].count_documents({}) == 0


@pytest.mark.parametrize("request_link", [send_magic_link, create_trial, send_trial_link])
async def test_disabled_client_is_refused(harness: ServiceHarness, request_link: Callable[..., SendMagicLink]) -> None:
    await disable_client(harness)
    with pytest.raises(Refused) as refused:
        await harness.deliver(request_link())
    assert (refused.value.kind, refused.value.code) == ("forbidden", "client_disabled")


async def test_address_in_a_test_domain_is_refused_in_production(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness
) -> None:
    await harness.deliver(send_magic_link(identifier_value="ana@nest.test"))
    async with new_harness(environment="production", issuer="https://nest.example") as production:
        with pytest.raises(Refused, match="invalid_email"):
            await production.deliver(send_magic_link(identifier_value="ana@nest.test"))


async def test_link_whose_row_has_blank_device_values_works(harness: ServiceHarness) -> None:
    code = await request_code(harness, device=DEVICE)
    blank = {"platform": "mac", "beakId": "", "fingerprint": " "}
    await harness.database["authorizations"].update_one({}, {"$set": {"device": blank}})
    await harness.deliver(redemption(code))
    assert await harness.database["familiars"].count_documents({}) == 0


async def test_create_trial_and_magic_link_creates_the_user_and_forwards(harness: ServiceHarness) -> None:
    assert await harness.deliver(create_trial()) is None
    [user] = harness.published_of(UserCreated)
    [trial] = harness.published_of(StartTrial)
    assert trial == StartTrial(
        user_id=user.user_id,
        email=ADDRESS,
        client_id=CLIENT,
        redirect_uri=REDIRECT_URI,
        state="a state",
        code_challenge=CHALLENGE,
        platform="mac",
        beak_id="beak-1",
        fingerprint="f-1",
        ordered_at=harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000),
    )
    assert harness.published_of(SendMail) == []
    identifier = await harness.database["identifiers"].find_one({})
    assert identifier["userId"] == user.user_id
    assert identifier["verifiedAt"] is None


async def test_create_trial_and_magic_link_finds_an_existing_user(harness: ServiceHarness) -> None:
    await harness.deliver(EnsureUser(reference="r", email=ADDRESS))
    [user] = harness.published_of(UserCreated)
    await harness.deliver(create_trial(identifier_value=ADDRESS.upper()))
    assert [trial.user_id for trial in harness.published_of(StartTrial)] == [user.user_id]
    assert await harness.database["users"].count_documents({}) == 1


async def test_second_delivery_of_create_trial_publishes_nothing(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(create_trial(), id=message_id)
    assert len(harness.published) == 2
    assert await harness.database["users"].count_documents({}) == 1


async def test_trial_link_contains_the_flow(harness: ServiceHarness) -> None:
    await harness.deliver(send_trial_link())
    [mail] = harness.published
    assert isinstance(mail, SendMail)
    assert mail.template == "trial-magic-link"
    link = mailed_link(harness, mail)
    assert link.startswith(f"{REDIRECT_URI}?state=a%20state&flow=trial&code=test_authzcode_")


async def test_second_delivery_of_send_trial_magic_link_sends_no_second_mail(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(send_trial_link(), id=message_id)
    assert len(harness.published) == 1


async def test_requested_locale_is_passed_to_mailer(harness: ServiceHarness) -> None:
    await harness.deliver(send_magic_link(locale="de-AT"))
    assert [mail.locale for mail in harness.published_of(SendMail)] == ["de-AT"]


async def test_nothing_is_ordered_or_counted_while_mail_would_arrive_too_late(harness: ServiceHarness) -> None:
    backlog = harness.context.mail_backlog
    backlog.measured("mailer", Lag(1, int(1000 * (time.time() - 200)), 0, ()))
    message_id = new_message_id()
    for command in (send_magic_link(), create_trial()):
        with pytest.raises(Refused) as refused:
            await harness.deliver(command, id=message_id if isinstance(command, SendMagicLink) else None)
        assert (refused.value.kind, refused.value.code) == ("unavailable", "unavailable")
        assert 0 < refused.value.meta["retry_after"] <= 60
    assert harness.published == []
    assert await harness.database["authorizations"].count_documents({}) == 0
    # A started trial gets its link, and so does a repeat once the backlog is gone.
    await harness.deliver(send_trial_link())
    backlog.measured("mailer", Lag(0, None, 1, ()))
    await harness.deliver(send_magic_link(), id=message_id)
    assert [type(each) for each in harness.published] == [SendMail, SendMail]


def mails_to(harness: ServiceHarness) -> list[SendMail]:
    return [each for each in harness.published if isinstance(each, SendMail)]


async def test_last_link_is_mailed_again_for_the_device_that_asked(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    await request_code(harness, state="older")
    harness.now += timedelta(minutes=1)
    await request_typed_code(harness, state="newer")
    harness.clear()

    await harness.deliver(ResendMagicLink(key=user_id, user_id=user_id))

    [mail] = mails_to(harness)
    link = mailed_link(harness, mail)
    assert "state=newer" in link
    assert harness.variables_of(mail)["code"] is not None
    assert (await harness.deliver(redemption(code_of(link))))["user_id"] == user_id


async def test_resend_delivered_twice_mails_once(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    await request_code(harness)
    harness.clear()
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(ResendMagicLink(key=user_id, user_id=user_id), id=message_id)
    assert len(mails_to(harness)) == 1


async def test_link_that_nobody_can_redeem_is_not_mailed_again(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    again = ResendMagicLink(key=user_id, user_id=user_id)
    assert await refusal(harness, again) == ("not_found", "no_open_magic_link"), "the only one was redeemed"
    await request_code(harness)
    harness.now += timedelta(minutes=11)
    assert await refusal(harness, again) == ("not_found", "no_open_magic_link"), "the newest has expired"
    assert await refusal(harness, ResendMagicLink(key="user_x", user_id="user_x")) == ("not_found", "not_found")
