"""Auth's part of a checkout: the client, its URLs, and the user's address."""

from typing import Any

import pytest

from shared.messages import Caller
from shared.messages.auth.checkouts import CreateCheckout
from shared.messages.billing.checkout import OpenCheckout, OrderedItem
from tests.auth.flows import CLIENT, OTHER_CLIENT, REDIRECT_URI, log_in
from tests.service_harness import Refused, ServiceHarness


def command(user: str, **changed: Any) -> CreateCheckout:
    fields: dict[str, Any] = {
        "key": user,
        "user_id": user,
        "client_id": CLIENT,
        "items": (OrderedItem(price_id="price_1", quantity=2),),
        "success_url": REDIRECT_URI,
        "cancel_url": REDIRECT_URI,
    }
    return CreateCheckout(**{**fields, **changed})


async def test_checkout_is_forwarded_with_the_verified_address(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    await harness.deliver(command(user_id, device={"beak_id": "b", "fingerprint": "f"}, locale="de_AT"))
    (forwarded,) = harness.published_of(OpenCheckout)
    assert (forwarded.user_id, forwarded.client_id, forwarded.email) == (user_id, CLIENT, "ana@example.com")
    assert (forwarded.beak_id, forwarded.fingerprint, forwarded.locale) == ("b", "f", "de-AT")
    assert forwarded.items == (OrderedItem(price_id="price_1", quantity=2),)


async def test_client_of_the_token_counts(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    caller = Caller(kind="user", user_id=user_id, client_id=CLIENT)
    await harness.deliver(command(user_id, client_id=OTHER_CLIENT), caller=caller)
    (forwarded,) = harness.published_of(OpenCheckout)
    assert forwarded.client_id == CLIENT


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"client_id": None}, "client_not_found"),
        ({"client_id": "client_none"}, "client_not_found"),
        ({"success_url": "https://evil.example/"}, "invalid_redirect_uri"),
        ({"cancel_url": "https://evil.example/"}, "invalid_redirect_uri"),
        ({"cancel_url": REDIRECT_URI + "?id={CHECKOUT_SESSION_ID}"}, "invalid_redirect_uri"),
        ({"user_id": "user_none"}, "not_found"),
    ],
)
async def test_checkout_that_may_not_be_made_is_refused(
    harness: ServiceHarness, changed: dict[str, Any], code: str
) -> None:
    user_id = (await log_in(harness))["user_id"]
    with pytest.raises(Refused) as refused:
        await harness.deliver(command(user_id, **changed))
    assert refused.value.code == code
    assert harness.published_of(OpenCheckout) == []


def test_price_is_named_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        command("user_1", items=(OrderedItem(price_id="price_1"), OrderedItem(price_id="price_1", quantity=2)))
