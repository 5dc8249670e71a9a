"""Attacks on owners, applications and their users over HTTP, without old clients."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest

from services.auth.accounts.api_keys import api_key
from tests.end_to_end.flows import Mongo, database
from tests.end_to_end.test_accounts import OTHER_PASSWORD, PASSWORD, call, create_application, create_owner, sign_up
from tests.stack import Stack

Body = dict[str, Any]


async def request(nest: Stack, verb: str, path: str, body: Body, **headers: str) -> httpx.Response:
    return await nest.http.request(verb, path, json=body, headers=headers)


@pytest.fixture
async def owner(nest: Stack, email: str) -> Body:
    return await create_owner(nest, email)


@pytest.fixture
async def application(nest: Stack, owner: Body) -> Body:
    return await create_application(nest, owner)


@pytest.fixture
async def token(nest: Stack, application: Body, email: str) -> str:
    """Token of an end user of the application."""
    await sign_up(nest, application, email)
    body = {"apikey": application["apiKey"], "email": email, "password": PASSWORD}
    return str((await call(nest, "POST", "/users/signwithemail", **body))["token"])


async def test_end_user_deletes_no_application_with_what_a_token_shows(
    nest: Stack, application: Body, token: str, mongo_client: Mongo
) -> None:
    claims = jwt.decode(token, options={"verify_signature": False})
    shown = await call(nest, "POST", "/users/userdata", token=token)
    ids = {value for value in [*claims.values(), *shown.values()] if isinstance(value, str)}
    keys = {shown["apikey"]}
    for each in ids:
        try:
            keys.add(api_key(UUID(each)))
        except ValueError:
            continue
    assert len(keys) >= 2
    assert not keys & {application["apiKey"]}
    for key in keys:
        for headers in ({}, {"authorization": f"bearer {token}"}):
            response = await request(nest, "DELETE", "/applications/delete", {"apikey": key}, **headers)
            assert response.json()["affectedRows"] == 0
    # Even the right key is not enough.
    for headers in ({}, {"authorization": f"bearer {token}"}):
        body = {"apikey": application["apiKey"]}
        response = await request(nest, "DELETE", "/applications/delete", body, **headers)
        assert (response.status_code, response.json()["auth"]) == (401, False)
    await call(nest, "GET", f"/users/islogged/{token}")
    stored = database(nest, mongo_client, "auth")["applications"].find_one({"_id": claims["aud"]})
    assert application["uuid"] not in str(stored)


async def test_owner_deletes_an_application_with_token_or_password(nest: Stack, owner: Body, email: str) -> None:
    owner_token = (await call(nest, "POST", "/appowner/login", email=email, password=PASSWORD))["token"]
    for name, body, headers in (
        ("first", {}, {"authorization": f"bearer {owner_token}"}),
        ("second", {"password": PASSWORD}, {}),
        ("third", {"current_password": PASSWORD}, {}),
    ):
        key = (await create_application(nest, owner, name))["apiKey"]
        response = await request(nest, "DELETE", "/applications/delete", {"apikey": key, **body}, **headers)
        assert (response.status_code, response.json()["affectedRows"]) == (202, 1)


async def test_uuid_of_an_owner_changes_neither_address_nor_password(nest: Stack, owner: Body, email: str) -> None:
    other = f"other.{email}"
    await create_owner(nest, other)
    others_token = (await call(nest, "POST", "/appowner/login", email=other, password=PASSWORD))["token"]
    head, claims, signature = others_token.split(".")
    forged = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged["sub"] = owner["uuid"]
    forged_claims = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    stolen = {"uuid": owner["uuid"], "firstname": "T", "lastname": "T", "email": f"thief.{email}"}
    for body, headers in (
        ({"password": OTHER_PASSWORD}, {}),
        ({"password": OTHER_PASSWORD}, {"authorization": f"bearer {others_token}"}),
        ({}, {"authorization": f"bearer {others_token}"}),
        ({}, {"authorization": f"bearer {head}.{forged_claims}.{signature}"}),
        ({}, {"authorization": f"bearer {owner['deletion_token']}"}),
    ):
        response = await request(nest, "POST", "/appowner/update", {**stolen, **body}, **headers)
        assert response.status_code == 401, response.text
    assert (await request(nest, "POST", "/appowner/update", stolen)).status_code == 422
    assert (await call(nest, "POST", "/appowner/login", email=email, password=PASSWORD))["firstname"] == "Ada"


async def test_new_password_and_address_are_mailed_to_the_old_address(nest: Stack, owner: Body, email: str) -> None:
    new = {"email": f"new.{email}", "password": OTHER_PASSWORD, "current_password": PASSWORD}
    body = {"uuid": owner["uuid"], "firstname": "Ada", "lastname": "Lovelace", **new}
    await call(nest, "POST", "/appowner/update", status=202, **body)
    await nest.mail(email, count=2)
    subjects = {mail.subject for mail in nest.inbox.arrivals(email)}
    assert {subject.partition(" for ")[0] for subject in subjects} == {"Your password", "Your address"}
    assert nest.inbox.arrivals(f"new.{email}") == []


async def test_stolen_token_of_a_user_does_not_change_the_password(nest: Stack, token: str) -> None:
    for body in ({}, {"current_password": "a guess of the thief"}):
        response = await request(nest, "PUT", "/users/update", {"token": token, "password": OTHER_PASSWORD, **body})
        assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")
    await call(nest, "GET", f"/users/islogged/{token}")


async def test_stolen_token_of_a_user_moves_no_mailbox_and_resets_no_password(
    nest: Stack, application: Body, token: str, email: str
) -> None:
    thief = f"thief.{email}"
    response = await request(nest, "PUT", "/users/update", {"token": token, "email": thief})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    await call(nest, "POST", "/users/forgot", status=202, apikey=application["apiKey"], email=thief)
    body = {"apikey": application["apiKey"], "email": email, "password": PASSWORD}
    await call(nest, "POST", "/users/signwithemail", **body)
    assert nest.inbox.arrivals(thief) == []
