"""How is a magic link ordered? Checked, stored as an authorization, and handed to mailer, which alone sees its key."""

from __future__ import annotations

from typing import Literal

from services.auth.audit.recorder import audited
from services.auth.clients.models import Client
from services.auth.context import Auth
from services.auth.magic_links.models import Authorization, link
from services.auth.rate_limits.limiter import device_ids
from services.auth.tokens.credentials import Code, new_key
from services.auth.users.handlers import register
from services.auth.users.models import normal_email
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, LinkRequest, SendMagicLink, SendTrialMagicLink
from shared.messages.billing.trials import StartTrial
from shared.messages.mailer.mails import LinkVariables, SendMail


@audited("send_magic_link")
async def send_magic_link(command: SendMagicLink, work: Work, auth: Auth) -> None:
    """Mail a link that logs this address in.

    Whether the address is known is not even looked up, so nothing about it shows.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail, Throttled: as spoken.
    """
    address = await _admit(command, work, auth, per_address="magic-links-per-address")
    _mail_link(command, address, work, auth, template="magic-link")


@audited("create_trial_and_magic_link")
async def create_trial_and_magic_link(command: CreateTrialAndMagicLink, work: Work, auth: Auth) -> None:
    """Make the user if need be; billing starts the trial, answers the caller, and then orders the link from us.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail, Throttled: as spoken.
    """
    address = await _admit(command, work, auth, per_address="trials-per-address")
    identifier = await auth.identifiers.find("email", address)
    if identifier is None:
        # Unverified: to order a trial for an address shows nothing about whose it is.
        identifier = register(address, work, auth, verified=False)
    else:
        auth.identifiers.require_unchanged(identifier, work)
    work.annotate(user_id=identifier.user_id)
    work.forward(
        StartTrial(
            key=identifier.user_id,
            user_id=identifier.user_id,
            email=address,
            client_id=command.client_id,
            redirect_uri=command.redirect_uri,
            state=command.state,
            code_challenge=command.code_challenge,
            platform=command.device.platform,
            beak_id=command.device.beak_id,
            fingerprint=command.device.fingerprint,
            locale=command.locale,
        )
    )


@audited("send_trial_magic_link")
async def send_trial_magic_link(command: SendTrialMagicLink, work: Work, auth: Auth) -> None:
    """Mail the link of a trial that has been started; ``flow=trial`` tells the app so.

    Nothing is counted here: the trial was, when it was ordered, and its link must follow.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail: as spoken.
    """
    address = _address(command, await auth.clients.get(command.client_id), work, auth)
    _mail_link(command, address, work, auth, template="trial-magic-link", flow="trial")


def _mail_link(
    request: LinkRequest,
    address: str,
    work: Work,
    auth: Auth,
    *,
    template: Literal["magic-link", "trial-magic-link"],
    flow: str | None = None,
) -> None:
    """Store an authorization, and order the mail that carries its link."""
    code = Code(work.new_id("authzcode"), new_key())
    authorization = Authorization.open(request, address, code, life=auth.authorization_lifetime, at=work.now)
    auth.authorizations.add(authorization, work)
    work.annotate(session_id=authorization.id)
    variables = LinkVariables(
        link=link(authorization.redirect_uri, code, authorization.state, flow=flow),
        minutes=int(auth.authorization_lifetime.total_seconds()) // 60,
    )
    work.publish(
        SendMail(
            template=template,
            to=Sealed.of(address),
            variables=Sealed.of(variables.model_dump_json()),
            client_id=request.client_id,
            locale=request.locale,
        )
    )


async def _admit(
    request: LinkRequest,
    work: Work,
    auth: Auth,
    *,
    per_address: Literal["magic-links-per-address", "trials-per-address"],
) -> str:
    """The address in its normal form, once nothing speaks against a link to it; the order is counted.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail, Throttled: something does.
    """
    client = await auth.clients.get(request.client_id)
    address = _address(request, client, work, auth)
    room = await auth.limits.room(
        {
            per_address: address,
            "magic-links-per-prefix": work.caller.client_ip,
            "magic-links-per-client": client.id,
        },
        work,
        traits=device_ids(request.device),
    )
    room.take()
    return address


def _address(request: LinkRequest, client: Client, work: Work, auth: Auth) -> str:
    """The address in its normal form.

    Raises:
        ClientDisabled, InvalidRedirectUri, InvalidEmail: no link may be sent to it, through this app, or leading there.
    """
    work.annotate(client_id=client.id)
    client.must_be_enabled()
    client.must_redirect_to(request.redirect_uri)
    return normal_email(request.identifier_value, test_domains=auth.test_domains)
