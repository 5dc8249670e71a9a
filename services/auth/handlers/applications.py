"""How do the applications of owners come and go?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import uuid4

from services.auth.audit import audited
from services.auth.context import Auth
from services.auth.models.account_fields import uuid_text
from services.auth.models.applications import Application
from services.auth.models.audit import pseudonym
from shared.bus.work import Work
from shared.messages.auth.accounts import (
    ApplicationDeletedView,
    ApplicationView,
    CreateApplication,
    DeleteApplication,
    RemoveApplicationUsers,
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
    owner = await auth.owners.get(uuid_text(auth.reveal(command.owneruuid), "owneruuid"))
    work.note(user_id=pseudonym("owner", owner.id))
    application = Application.create(
        id=str(uuid4()),
        owner_id=owner.id,
        name=command.appname,
        passwordless=command.passwordless,
        at=work.now,
    )
    auth.owners.hold(owner, work)
    auth.applications.add(application, work)
    work.note(client_id=pseudonym("application", application.id))
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
    application = await auth.applications.find_by_key(auth.reveal(command.apikey))
    if application is None:
        return ApplicationDeletedView(affectedRows=0, message="nothing to delete")
    work.note(user_id=pseudonym("owner", application.owner_id), client_id=pseudonym("application", application.id))
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
