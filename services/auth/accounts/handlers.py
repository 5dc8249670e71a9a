"""How do owners of applications come and go?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar
from uuid import uuid4

from services.auth.accounts.models import DELETION_AUDIENCE, DELETION_TYPE, Application, Owner, account_email, uuid_text
from services.auth.audit.models import pseudonym
from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.rate_limits.limiter import trait
from shared.bus.work import Work
from shared.messages.auth.accounts import (
    ApplicationDeletedView,
    ApplicationView,
    CreateApplication,
    DeleteApplication,
    DeleteOwner,
    GetOwner,
    LogInOwner,
    OwnerDeletedView,
    OwnerUpdatedView,
    OwnerView,
    OwnerWithTokenView,
    RegisterOwner,
    RemoveApplicationUsers,
    RemoveOwnerApplications,
    UpdateOwner,
)
from shared.messages.auth.errors import EmailTaken, InvalidToken, WrongCredentials
from shared.networks import prefix


@audited("register_owner")
async def register_owner(command: RegisterOwner, work: Work, auth: Auth) -> OwnerWithTokenView:
    """Make an owner.

    Raises:
        FieldRefused: the address or the password.
        EmailTaken: at the commit, when another owner has the address.
        Unavailable: too many passwords wait.
    """
    email = account_email(command.email, test_domains=auth.test_domains)
    owner = Owner.register(
        id=str(uuid4()),
        firstname=command.firstname,
        lastname=command.lastname,
        email=email,
        password_hash=await auth.passwords.hash_new(auth.unseal(command.password)),
        at=work.now,
    )
    auth.owners.add(owner, work)
    work.annotate(user_id=pseudonym("owner", owner.id))
    return _with_token(owner, work, auth)


async def get_owner(query: GetOwner, work: Work, auth: Auth) -> OwnerView:
    """An owner; old clients get the deletion token with it.

    Raises:
        FieldRefused: the id is no UUID.
        OwnerNotFound: there is no such owner.
    """
    owner = await auth.owners.get(uuid_text(auth.unseal(query.uuid), "uuid"))
    if auth.old_clients:
        return _with_token(owner, work, auth)
    return OwnerView(firstname=owner.firstname, lastname=owner.lastname, email=owner.email, uuid=owner.id)


@audited("log_in_owner")
async def log_in_owner(command: LogInOwner, work: Work, auth: Auth) -> OwnerWithTokenView:
    """An owner who shows the password, with a new deletion token.

    Raises:
        FieldRefused: the address can't be one.
        Refusal: as ``proven`` says.
    """
    email = account_email(command.email, test_domains=auth.test_domains)
    password = auth.unseal(command.password)
    found = await auth.owners.find_by_email(email)
    if found is not None:
        work.annotate(user_id=pseudonym("owner", found.id))
    owner = await proven(found, password, f"owner {email}", work, auth)
    if auth.passwords.outdated(owner.password_hash):
        auth.owners.save(owner.hash_again(await auth.passwords.hash_again(password)), work)
    return _with_token(owner, work, auth)


@audited("update_owner")
async def update_owner(command: UpdateOwner, work: Work, auth: Auth) -> OwnerUpdatedView:
    """Change an owner's names, address and password; another password ends the deletion tokens that are out.

    Raises:
        FieldRefused: the id, the address or the password.
        OwnerNotFound: there is no such owner.
        EmailTaken: another owner has the address.
        Unavailable: too many passwords wait.
    """
    owner = await auth.owners.get(uuid_text(auth.unseal(command.uuid), "uuid"))
    work.annotate(user_id=pseudonym("owner", owner.id))
    email = account_email(command.email, test_domains=auth.test_domains)
    # Not left to the index alone: a replacement is not refused in our words, its handler runs again, and sees it here.
    if email != owner.email and await auth.owners.find_by_email(email) is not None:
        raise EmailTaken
    changed = owner.update(firstname=command.firstname, lastname=command.lastname, email=email, at=work.now)
    password = auth.unseal(command.password)
    if not await auth.passwords.recognise(password, owner.password_hash):
        changed = changed.change_password(await auth.passwords.hash_new(password), at=work.now)
    auth.owners.save(changed, work)
    return OwnerUpdatedView()


@audited("delete_owner")
async def delete_owner(command: DeleteOwner, work: Work, auth: Auth) -> OwnerDeletedView:
    """Delete an owner, with all applications and their users, for whoever shows a deletion token.

    A token that is no good deletes nothing, and is not told from an owner who is not there.

    Raises:
        FieldRefused: the id is no UUID.
    """
    owner = await auth.owners.find(uuid_text(auth.unseal(command.uuid), "uuid"))
    if owner is not None:
        work.annotate(user_id=pseudonym("owner", owner.id))
    token = auth.unseal(command.deletion_token)
    try:
        claims = auth.signer.verify(token, typ=DELETION_TYPE, audience=DELETION_AUDIENCE, at=work.now)
        if owner is None:
            return OwnerDeletedView(affectedRows=0)
        owner.must_permit_deletion(claims)
    except InvalidToken:
        return OwnerDeletedView(affectedRows=0)
    auth.owners.remove(owner, work)
    # Nearly always that is all of them, and then none outlives the owner for a moment.
    remove_applications(await auth.applications.of_owner(owner.id, most=BATCH), work, auth)
    # Looks once more, after this is committed: an application may just be coming into being.
    work.publish(RemoveOwnerApplications(key=owner.id, owner_id=owner.id))
    return OwnerDeletedView(affectedRows=1)


async def remove_owner_applications(command: RemoveOwnerApplications, work: Work, auth: Auth) -> None:
    """Delete what an owner leaves behind, some at a time."""
    applications = await auth.applications.of_owner(command.owner_id, most=BATCH)
    remove_applications(applications, work, auth)
    if len(applications) == BATCH:
        work.publish(RemoveOwnerApplications(key=command.owner_id, owner_id=command.owner_id))


def _with_token(owner: Owner, work: Work, auth: Auth) -> OwnerWithTokenView:
    claims = owner.deletion_claims(id=work.new_id("deltok"), at=work.now)
    return OwnerWithTokenView(
        firstname=owner.firstname,
        lastname=owner.lastname,
        email=owner.email,
        uuid=owner.id,
        deletion_token=auth.signer.sign(claims, typ=DELETION_TYPE),
    )


BATCH: Final = 200
"""How many documents one message deletes: some milliseconds' worth of a transaction that others may wait for."""


@audited("create_application")
async def create_application(command: CreateApplication, work: Work, auth: Auth) -> ApplicationView:
    """Make an application, for a year.

    Raises:
        FieldRefused: the owner's id is no UUID.
        OwnerNotFound: there is no such owner.
        AppnameTaken: at the commit, when the owner has another of this name.
    """
    owner = await auth.owners.get(uuid_text(auth.unseal(command.owneruuid), "owneruuid"))
    work.annotate(user_id=pseudonym("owner", owner.id))
    application = Application.create(
        id=str(uuid4()),
        owner_id=owner.id,
        name=command.appname,
        passwordless=command.passwordless,
        at=work.now,
    )
    auth.owners.require_unchanged(owner, work)
    auth.applications.add(application, work)
    work.annotate(client_id=pseudonym("application", application.id))
    return ApplicationView(
        appname=application.name,
        creationdate=application.created_at.date(),
        enddate=application.ends_at,
        uuid=application.id,
        apiKey=application.api_key,
    )


@audited("delete_application")
async def delete_application(command: DeleteApplication, work: Work, auth: Auth) -> ApplicationDeletedView:
    """Delete an application and all its users.

    From this commit on nobody logs in there or signs up; the users' documents go right afterwards.

    Raises:
        MalformedApiKey: nobody can have this key.
    """
    application = await auth.applications.find_by_key(auth.unseal(command.apikey))
    if application is None:
        return ApplicationDeletedView(affectedRows=0, message="nothing to delete")
    work.annotate(user_id=pseudonym("owner", application.owner_id), client_id=pseudonym("application", application.id))
    remove_applications([application], work, auth)
    return ApplicationDeletedView(affectedRows=1, message="All auth users of this application are deleted too")


async def remove_application_users(command: RemoveApplicationUsers, work: Work, auth: Auth) -> None:
    """Delete the users of an application that is gone, some at a time.

    It comes after the removal is committed, and every sign-up holds its application, so none can follow.
    """
    users = await auth.application_users.of_application(command.application_id, most=BATCH)
    for user in users:
        auth.application_users.remove(user, work)
    if len(users) == BATCH:
        work.publish(RemoveApplicationUsers(key=command.application_id, application_id=command.application_id))


def remove_applications(applications: Iterable[Application], work: Work, auth: Auth) -> None:
    """Delete applications, and order that their users are deleted."""
    for application in applications:
        auth.applications.remove(application, work)
        work.publish(RemoveApplicationUsers(key=application.id, application_id=application.id))


class WithPassword(Protocol):
    """Whoever has a password."""

    @property
    def password_hash(self) -> str:
        """What is kept of it."""


Known = TypeVar("Known", bound=WithPassword)


async def proven(known: Known | None, password: str, subject: str, work: Work, auth: Auth) -> Known:
    """Whoever was looked for, once they have shown their password.

    An unknown address takes the same way as a wrong password, the counting included. Who comes from a network that the
    person has logged in from before has a budget of their own, so that strangers can't use it up.

    Args:
        known: whom the address belongs to; None: nobody.
        password: as it came.
        subject: names the address, and where it was looked for.
        work: what is filled.
        auth: where.

    Raises:
        Throttled: too many wrong ones lately; this one was not looked at.
        WrongCredentials: nobody, or another password.
        FieldRefused: the password is too long to be one.
        Unavailable: too many passwords wait to be looked at.
    """
    network = trait("network", None if work.caller.client_ip is None else prefix(work.caller.client_ip))
    room = await auth.limits.room({"passwords-per-user": subject}, work, traits=network)
    room.judge()
    right = await auth.passwords.recognise(password, None if known is None else known.password_hash)
    if known is None or not right:
        room.take()
        raise WrongCredentials
    (await auth.limits.acquaintance(subject, network)).remember(work)
    return known
