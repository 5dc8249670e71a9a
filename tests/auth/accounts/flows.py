"""Messages and steps that tests of owners, applications and their users share."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from services.auth.accounts.api_keys import api_key
from shared.messages import Message, Sealed
from shared.messages.auth.accounts import (
    CheckSignIn,
    DeleteOwner,
    GetApplicationUser,
    GetOwner,
    LogInOwner,
    RegisterOwner,
    SignIn,
    SignInWithEmail,
    SignUp,
    UpdateApplicationUser,
    UpdateOwner,
)
from shared.messages.auth.applications import (
    CreateApplication,
    DeleteApplication,
    RemoveApplicationUsers,
    RemoveOwnerApplications,
)
from tests.service_harness import ServiceHarness

CHEAP = {"password_memory": 1, "password_passes": 1}
"""Settings with which a hash takes a millisecond."""
PASSWORD = "a long sentence is easy to keep"
OTHER_PASSWORD = "another one is no harder to keep"
OWNER = {"firstname": "Ada", "lastname": "Lovelace", "email": "ada@example.com", "password": PASSWORD}
USER = {"username": "jbond", "email": "j.bond@example.com", "password": PASSWORD}
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
UNKNOWN_KEY = api_key(UUID(UNKNOWN_ID))
SECRETS = (*("password", "current_password", "uuid", "owneruuid", "apikey", "token", "owner_token", "deletion_token"),)


def message(kind: type[Message], **fields: Any) -> Message:
    """A message, with its secrets given as plain text."""
    return kind(
        **{name: Sealed.of(value) if name in SECRETS and value is not None else value for name, value in fields.items()}
    )


def register_owner(**changed: Any) -> Message:
    return message(RegisterOwner, **{**OWNER, **changed})


def log_in_owner(email: str = OWNER["email"], password: str = PASSWORD) -> Message:
    return message(LogInOwner, email=email, password=password)


def get_owner(uuid: str) -> Message:
    return message(GetOwner, uuid=uuid)


def update_owner(uuid: str, **changed: Any) -> Message:
    return message(UpdateOwner, uuid=uuid, **{**OWNER, **changed})


def delete_owner(owner: dict[str, Any], **changed: Any) -> Message:
    return message(DeleteOwner, **{"uuid": owner["uuid"], "deletion_token": owner["deletion_token"], **changed})


def create_application(owneruuid: str, appname: str = "An app", **options: Any) -> Message:
    return message(CreateApplication, owneruuid=owneruuid, appname=appname, **options)


def delete_application(apikey: str, **credential: Any) -> Message:
    return message(DeleteApplication, apikey=apikey, **{"password": PASSWORD, **credential})


def sign_up(apikey: str, **changed: Any) -> Message:
    return message(SignUp, apikey=apikey, **{**USER, **changed})


def sign_in(uuid: str, apikey: str) -> Message:
    return message(SignIn, uuid=uuid, apikey=apikey)


def sign_in_with_email(apikey: str, email: str = USER["email"], password: str = PASSWORD) -> Message:
    return message(SignInWithEmail, apikey=apikey, email=email, password=password)


def check_sign_in(token: str) -> Message:
    return message(CheckSignIn, token=token)


def get_application_user(token: str) -> Message:
    return message(GetApplicationUser, token=token)


def update_application_user(token: str, **changed: Any) -> Message:
    return message(UpdateApplicationUser, token=token, **changed)


async def new_owner(harness: ServiceHarness, **changed: Any) -> dict[str, Any]:
    owner: dict[str, Any] = await harness.deliver(register_owner(**changed))
    return owner


async def new_application(harness: ServiceHarness, **options: Any) -> dict[str, Any]:
    """Register an owner, and create an application."""
    owner = await new_owner(harness, email=options.pop("email", OWNER["email"]))
    application: dict[str, Any] = await harness.deliver(create_application(owner["uuid"], **options))
    return application


async def new_user(harness: ServiceHarness, apikey: str, **changed: Any) -> tuple[dict[str, Any], str]:
    """Sign a user up and in, and return the user and a token."""
    user = await harness.deliver(sign_up(apikey, **changed))
    view = await harness.deliver(sign_in_with_email(apikey, user["email"], changed.get("password", PASSWORD)))
    return user, view["token"]


async def follow_up(harness: ServiceHarness) -> None:
    """Deliver the commands that auth has published to itself, until there are none."""
    while True:
        commands = [
            each for each in harness.published if isinstance(each, RemoveApplicationUsers | RemoveOwnerApplications)
        ]
        harness.clear()
        if not commands:
            return
        for command in commands:
            await harness.deliver(command)


async def document_counts(harness: ServiceHarness) -> dict[str, int]:
    """Number of documents by collection."""
    names = ("owners", "applications", "application_users")
    return {name: await harness.database[name].count_documents({}) for name in names}
