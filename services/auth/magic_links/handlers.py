"""Handlers of requests for a magic link: check, store an authorization, and order the mail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, Literal

from services.auth.audit.recorder import audited
from services.auth.clients.models import Client
from services.auth.context import Auth
from services.auth.login_steps import login_step
from services.auth.magic_links.models import TYPED_CODE_PURPOSE, Authorization, TypedCode, magic_link, mail_id_of
from services.auth.phone.models import new_code
from services.auth.rate_limits.known_devices import device_ids
from services.auth.rate_limits.models import LimitName
from services.auth.tokens.credentials import Code, new_key
from services.auth.users.handlers import find_or_order_user
from shared.bus.handling import without_search
from shared.bus.work import Work
from shared.email_addresses import normal_email
from shared.messages import Sealed
from shared.messages.auth.errors import NoOpenMagicLink
from shared.messages.auth.magic_links import (
    CreateTrialAndMagicLink,
    LinkRequest,
    OrderTrialMagicLink,
    ResendMagicLink,
    SendMagicLink,
    SendMagicLinkAndCode,
    SendTrialMagicLink,
)
from shared.messages.billing.trials import OfferTrial, StartTrial
from shared.messages.mailer.mails import LinkVariables, SendMail

MAIL_WITHIN: Final = 1 / 2
"""A link that waits longer than this fraction of its lifetime is not mailed: the person would have too little time."""


@without_search
@login_step("mail", "asked")
@audited("send_magic_link")
async def send_magic_link(command: SendMagicLink, work: Work, auth: Auth) -> None:
    """Mail a link that logs this address in.

    The address is not looked up, so neither the reply nor its timing shows whether it has a user.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri: the app can't request this link.
        InvalidEmail: the address can't receive mail.
        Throttled: too many requests for this address, from this network or by this app.
        Unavailable: the mail would arrive too late.
    """
    await _send_link(command, work, auth, with_digits=False)


@without_search
@login_step("mail", "asked")
@audited("send_magic_link")
async def send_magic_link_and_code(command: SendMagicLinkAndCode, work: Work, auth: Auth) -> None:
    """Mail a link and a typed code, which replaces the open code of this address and app.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail, Throttled, Unavailable: as for
            ``send_magic_link``.
    """
    await _send_link(command, work, auth, with_digits=True)


@login_step("mail", "asked")
@audited("create_trial_and_magic_link")
async def create_trial_and_magic_link(command: CreateTrialAndMagicLink, work: Work, auth: Auth) -> None:
    """Find or create the user of this address, and forward the request to billing.

    Billing starts a provisional trial, replies to the caller, and then orders the link by ``SendTrialMagicLink``.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail, Throttled, Unavailable: as for
            ``send_magic_link``.
    """
    address = await _check_trial_order(command, work, auth)
    user_id = await find_or_order_user(address, command.client_id, work, auth)
    work.forward(
        StartTrial(
            key=user_id,
            user_id=user_id,
            ordered_at=work.now,
            **_order(command, address),
        )
    )


@login_step("mail", "asked")
@audited("create_trial_and_magic_link")
async def order_trial_magic_link(command: OrderTrialMagicLink, work: Work, auth: Auth) -> None:
    """Order the link of a trial that starts when the link is redeemed, or a link that only logs in.

    Billing decides which of them by ``SendTrialMagicLink``, after the reply. So the reply and its timing show neither
    whether the address has a user nor whether person and device are eligible.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail, Throttled, Unavailable: as for
            ``send_magic_link``.
    """
    address = await _check_trial_order(command, work, auth)
    identifier = await auth.identifiers.find_by_value("email", address)
    work.publish(
        OfferTrial(
            key=work.key,
            user_id=None if identifier is None else identifier.user_id,
            with_digits=True,
            **_order(command, address),
        )
    )


@audited("send_trial_magic_link")
async def send_trial_magic_link(command: SendTrialMagicLink, work: Work, auth: Auth) -> None:
    """Mail the link of a trial, which contains ``flow=trial`` for the app, or a link that only logs in.

    No rate limit applies: the request for the trial was counted, and its link must follow.

    Raises:
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail: as for ``send_magic_link``.
    """
    client = await auth.clients.get_recent(command.client_id)
    address = _check_request(command, client, work, auth)
    with_digits = command.with_digits
    if command.eligible:
        await _mail_link(command, client, address, work, auth, with_digits=with_digits, flow="trial")
    else:
        await _mail_link(command, client, address, work, auth, with_digits=with_digits)


@audited("resend_magic_link")
async def resend_magic_link(command: ResendMagicLink, work: Work, auth: Auth) -> None:
    """Mail the newest open link of a user again, with a code of its own for the same request.

    Raises:
        UserNotFound: no user has this ID.
        NoOpenMagicLink: no link to an address of the user can be redeemed.
        ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail: the app could not request this link now.
    """
    user, identifiers = await auth.users.with_identifiers(command.user_id)
    work.annotate(user_id=user.id)
    addresses = [
        each.identifier_value for each in identifiers if each.identifier_type == "email" and not each.removed_at
    ]
    last = await auth.authorizations.newest_open(addresses, at=work.now)
    if last is None:
        raise NoOpenMagicLink
    request = SendMagicLinkAndCode(
        client_id=last.client_id,
        redirect_uri=last.redirect_uri,
        state=last.state,
        code_challenge_method=last.code_challenge_method,
        code_challenge=last.code_challenge,
        identifier_type="email",
        identifier_value=last.identifier_value,
        device=last.device,
    )
    client = await auth.clients.get_recent(request.client_id)
    address = _check_request(request, client, work, auth)
    flow: Literal["trial"] | None = "trial" if last.trial else None
    with_digits = last.typed_code is not None
    await _mail_link(request, client, address, work, auth, with_digits=with_digits, flow=flow)


async def _send_link(
    command: SendMagicLink | SendMagicLinkAndCode, work: Work, auth: Auth, *, with_digits: bool
) -> None:
    client = await auth.clients.get_recent(command.client_id)
    address = _check_request(command, client, work, auth)
    auth.mail_backlog.must_be_short(auth.authorization_lifetime)
    await _take_quota("magic-links-per-address", address, command, work, auth)
    await _mail_link(command, client, address, work, auth, with_digits=with_digits)


def _order(command: CreateTrialAndMagicLink | OrderTrialMagicLink, address: str) -> dict[str, Any]:
    """Fields of the command with which billing continues the order of a trial."""
    return {
        "email": address,
        "client_id": command.client_id,
        "redirect_uri": command.redirect_uri,
        "state": command.state,
        "code_challenge": command.code_challenge,
        "platform": command.device.platform,
        "beak_id": command.device.beak_id,
        "fingerprint": command.device.fingerprint,
        "locale": command.locale,
    }


async def _check_trial_order(command: CreateTrialAndMagicLink | OrderTrialMagicLink, work: Work, auth: Auth) -> str:
    """Check and count the order of a trial, and return the address in normal form.

    Raises:
        Refusal: as for ``create_trial_and_magic_link``.
    """
    client = await auth.clients.get_recent(command.client_id)
    address = _check_request(command, client, work, auth)
    auth.mail_backlog.must_be_short(auth.authorization_lifetime)
    await _take_quota("trials-per-address", address, command, work, auth)
    return address


def _check_request(request: LinkRequest, client: Client, work: Work, auth: Auth) -> str:
    """Check app, redirect URI and address, and return the address in normal form.

    Raises:
        ClientDisabled, InvalidRedirectUri, InvalidEmail: as for ``send_magic_link``.
    """
    work.annotate(client_id=client.id)
    client.must_be_enabled()
    client.must_redirect_to(request.redirect_uri)
    return normal_email(request.identifier_value, test_domains=auth.test_domains)


async def _take_quota(
    limit: Literal["magic-links-per-address", "trials-per-address"],
    address: str,
    request: LinkRequest,
    work: Work,
    auth: Auth,
) -> None:
    """Count the request under the limits of its address, network and app; trials also under those of all trials.

    Raises:
        Throttled: one of the limits is reached.
    """
    subjects: dict[LimitName, str | None] = {
        limit: address,
        "magic-links-per-prefix": work.caller.client_ip,
        "magic-links-per-client": request.client_id,
    }
    if limit == "trials-per-address":
        subjects |= {"trials-per-prefix": work.caller.client_ip, "trials-per-deployment": ""}
    (await auth.rate_limits.quota(subjects, work, device_ids=device_ids(request.device))).take()


async def _mail_link(
    request: LinkRequest,
    client: Client,
    address: str,
    work: Work,
    auth: Auth,
    *,
    with_digits: bool,
    flow: Literal["trial"] | None = None,
) -> None:
    """Store an authorization, and order the mail with its link. Only mailer can unseal the codes in it."""
    code, digits = Code(work.new_id("authzcode"), new_key()), new_code()
    code_lifetime = min(auth.typed_code_lifetime, auth.authorization_lifetime)
    typed_code = TypedCode(
        hash=auth.sealer.keyed_hash(TYPED_CODE_PURPOSE, digits.encode(), code.id.encode()),
        expires_at=work.now + code_lifetime,
    )
    authorization = Authorization.issue(
        request,
        address,
        code,
        trial=flow == "trial",
        lifetime=auth.authorization_lifetime,
        at=work.now,
        typed_code=typed_code if with_digits else None,
    )
    auth.authorizations.add(authorization, work)
    if with_digits:
        # One open code for each address and app, so that more requests do not allow more guesses.
        for earlier in await auth.authorizations.open_competitors(authorization, at=work.now):
            if earlier.typed_code is not None:
                auth.authorizations.save(earlier.revoke_typed_code(at=work.now), work)
    work.annotate(session_id=authorization.id)
    variables = LinkVariables(
        link=magic_link(request.redirect_uri, code, request.state, flow=flow),
        minutes=_minutes(auth.authorization_lifetime),
        code=digits if with_digits else None,
        code_minutes=_minutes(code_lifetime) if with_digits else None,
        press=client.press_to_redeem,
    )
    work.publish(
        SendMail(
            key=authorization.id,
            template="magic-link" if flow is None else "trial-magic-link",
            to=Sealed.of(address),
            variables=Sealed.of_json(variables),
            client_id=request.client_id,
            locale=request.locale,
            expires_at=work.now + auth.authorization_lifetime * MAIL_WITHIN,
        ),
        id=mail_id_of(authorization.id),
    )


def _minutes(lifetime: timedelta) -> int:
    return int(lifetime.total_seconds()) // 60
