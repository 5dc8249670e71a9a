"""The one Stripe customer of a user: found by its mapping or its metadata, or created once.

The idempotency key is derived from the user's ID, so that a trial and checkouts at the same moment get one customer. A
customer is never found by its address alone, which others may have typed: its metadata must name the user.
"""

from __future__ import annotations

from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from shared.fault_points import fault_point


async def provision_customer(
    user_id: str, email: str | None, *, mapped: str | None, stripe: Stripe, find_first: bool
) -> str:
    """Return the ID of a user's customer: the mapped one, that of an earlier attempt, or a new one.

    Args:
        user_id: of the user.
        email: address of a new customer, in normal form; None for none.
        mapped: the customer that is known to be the user's.
        stripe: the account.
        find_first: whether Stripe may have forgotten the idempotency keys of earlier attempts.

    Raises:
        StripeRefused: Stripe accepts no customer with this address, above all.
        StripeUnavailable: Stripe is unavailable; the next attempt finds what this one created.
    """
    key = f"{user_id}:customer"
    if mapped is not None:
        customer = await stripe.customer(mapped)
        if customer is not None and not customer.deleted:
            return customer.id
        # Under the same key Stripe would return the deleted customer again.
        key = f"{key}:after:{mapped}"
    customer_id = await idempotent_create(
        find=lambda: stripe.customer_id_of(user_id, email),
        create=lambda generation: stripe.create_customer(
            email=email, user_id=user_id, key=key_of_generation(key, generation)
        ),
        find_first=find_first,
    )
    fault_point("B1")
    return customer_id
