"""Handler of checkouts: checks the client and its URLs, adds the user's address, and forwards to billing."""

from __future__ import annotations

from typing import Final

from services.auth.context import Auth
from services.auth.users.handlers import keep_user, newest_address
from shared.bus.work import Work
from shared.messages.auth.checkouts import CreateCheckout
from shared.messages.auth.errors import ClientNotFound
from shared.messages.auth.magic_links import Device
from shared.messages.billing.checkout import OpenCheckout

NO_DEVICE: Final = Device()


async def create_checkout(command: CreateCheckout, work: Work, auth: Auth) -> None:
    """Forward the checkout of a user to billing, which replies to the caller.

    Raises:
        ClientNotFound, ClientDisabled: the client may not sell.
        InvalidRedirectUri: a URL is not one of the client's.
        UserNotFound: no user has this ID.
    """
    client_id = work.caller.client_id or command.client_id
    if client_id is None:
        raise ClientNotFound
    client = await auth.clients.get(client_id)
    work.annotate(client_id=client.id)
    client.must_be_enabled()
    client.must_return_to(command.success_url)
    client.must_redirect_to(command.cancel_url)
    user, identifiers = await auth.users.with_identifiers(command.user_id)
    await keep_user(user.id, work, auth)
    work.annotate(user_id=user.id)
    device = command.device or NO_DEVICE
    work.forward(
        OpenCheckout(
            key=user.id,
            user_id=user.id,
            client_id=client.id,
            email=newest_address(identifiers),
            items=command.items,
            success_url=command.success_url,
            cancel_url=command.cancel_url,
            trial=command.trial,
            beak_id=device.beak_id,
            fingerprint=device.fingerprint,
            locale=command.locale,
        )
    )
