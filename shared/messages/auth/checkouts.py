"""Checkouts: the command with which a user subscribes or pays once."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.messages.auth.errors import ClientDisabled, ClientNotFound, InvalidRedirectUri
from shared.messages.auth.magic_links import Device
from shared.messages.billing.checkout import CHECKOUT_REFUSALS, MAX_ITEMS, CheckoutView, OrderedItem
from shared.messages.message import Command
from shared.messages.types import NonEmpty, PreferredLocale, Uri, UserId

OrderedItems = Annotated[tuple[OrderedItem, ...], Field(min_length=1, max_length=MAX_ITEMS)]


class CreateCheckout(
    Command,
    wire="auth.create-checkout",
    personal=True,
    audited=True,
    reply=CheckoutView,
    reply_sealed=True,
    refuses=(ClientNotFound, ClientDisabled, InvalidRedirectUri, *CHECKOUT_REFUSALS),
):
    """Create a page of Stripe on which a user subscribes, or pays for one-time prices.

    While the page is open, the same order returns it again, and another order replaces it: a user has one open page. A
    user who has a live subscription of the product, or of one that excludes it, gets a page of the customer portal that
    changes the subscription. All pages are those of one customer in Stripe.

    The subscription begins with a free trial if a price has one, and if user, person and device have had none. If
    another person had a trial with the card, the trial ends as soon as the card is known.
    """

    user_id: UserId
    client_id: NonEmpty | None = None
    """The client whose redirect URIs the two URLs must be; needed with an internal key. With an access token it is the
    token's client."""
    items: OrderedItems
    """The prices, 1 to 20. Recurring ones must have the same interval, and all the same currency."""
    success_url: Uri
    """Page that follows the payment: one of the client's redirect URIs, character by character. A query parameter with
    the value ``{CHECKOUT_SESSION_ID}`` may be added, which Stripe fills in."""
    cancel_url: Uri
    """Page behind Stripe's way back: one of the client's redirect URIs."""
    trial: bool = True
    """Whether the subscription may begin with a trial."""
    device: Device | None = None
    """The person's device, which can have one trial. Without it the device is not checked."""
    locale: PreferredLocale = None
    """Language of the page (RFC 5646); the browser's, if it is left out or Stripe does not have it."""

    @model_validator(mode="after")
    def _names_each_price_once(self) -> Self:
        if len({item.price_id for item in self.items}) < len(self.items):
            raise ValueError("items name a price twice: set its quantity instead")
        return self
