"""Links that accounts with passwords get by mail, and attacks on them over HTTP."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.end_to_end.flows import Mongo, database
from tests.end_to_end.test_accounts import OTHER_PASSWORD, PASSWORD, call, create_application, create_owner, sign_up
from tests.stack import Stack

Body = dict[str, Any]
DONE = {"done": True}


@pytest.fixture
async def owner(nest: Stack, email: str) -> Body:
    return await create_owner(nest, f"owner.{email}")


@pytest.fixture
async def application(nest: Stack, owner: Body) -> Body:
    return await create_application(nest, owner, "Clocks")


@pytest.fixture
async def token(nest: Stack, application: Body, email: str) -> str:
    """Token of a user, who has not proven the address."""
    await sign_up(nest, application, email)
    return str((await sign_in(nest, application, email, PASSWORD)).json()["token"])


async def sign_in(nest: Stack, application: Body, email: str, password: str) -> httpx.Response:
    body = {"apikey": application["apiKey"], "email": email, "password": password}
    return await nest.http.post("/users/signwithemail", json=body)


async def link_token(nest: Stack, address: str, subject: str) -> str:
    """Wait for a mail with these words in the subject, and return the token in its link."""
    mail = await nest.mail(address, subject=subject)
    found = re.search(r"/(?:reset|confirm)/([^\s?]+)", mail.text)
    assert found is not None, mail.text
    return found.group(1)


async def reset_token(nest: Stack, application: Body, address: str) -> str:
    body = {"apikey": application["apiKey"], "email": address}
    assert await call(nest, "POST", "/users/forgot", status=202, **body) == DONE
    return await link_token(nest, address, "new password")


async def reset(nest: Stack, token: str, password: str = OTHER_PASSWORD) -> tuple[int, str]:
    response = await nest.http.post("/users/reset", json={"token": token, "password": password})
    return response.status_code, response.json().get("code", "done")


async def test_reset_link_works_once_and_ends_all_tokens(
    nest: Stack, application: Body, token: str, email: str
) -> None:
    link = await reset_token(nest, application, email)
    # A scanner opens the link before its reader does.
    for _ in range(2):
        assert (await nest.http.get(f"/reset/{link}")).status_code == 200

    assert await call(nest, "POST", "/users/reset", status=202, token=link, password=OTHER_PASSWORD) == DONE

    ended = await nest.http.get(f"/users/islogged/{token}")
    assert (ended.status_code, ended.json()["code"]) == (401, "not_logged_in")
    assert (await sign_in(nest, application, email, PASSWORD)).status_code == 401
    new = (await sign_in(nest, application, email, OTHER_PASSWORD)).json()["token"]
    assert (await call(nest, "POST", "/users/userdata", token=new))["verified"] is True
    await nest.mail(email, subject="was changed")
    for again in (PASSWORD, OTHER_PASSWORD):
        assert await reset(nest, link, again) == (401, "link_not_valid")
    assert (await nest.http.post(f"/reset/{link}", data={"password": PASSWORD})).status_code == 404
    assert (await sign_in(nest, application, email, OTHER_PASSWORD)).status_code == 200


async def test_forged_and_expired_links_change_nothing(
    nest: Stack, application: Body, token: str, email: str, mongo_client: Mongo
) -> None:
    link = await reset_token(nest, application, email)
    proof = await link_token(nest, email, "Confirm your address")
    link_id, _, key = link.partition(".")
    links = database(nest, mongo_client, "auth")["account_links"]
    document = links.find_one({"_id": link_id})
    assert document is not None
    forged = (
        *(f"{link_id}.{'0' * 64}", f"{link_id}x.{key}", f"{link_id}.", "", token, application["apiKey"]),
        # A link of another kind, and what a reader of the database knows.
        *(proof, f"{link_id}.{document['key']}"),
    )
    for each in forged:
        assert await reset(nest, each) == (401, "link_not_valid"), each
    links.update_one({"_id": link_id}, {"$set": {"expiresAt": document["createdAt"]}})
    assert await reset(nest, link) == (401, "link_not_valid")
    await call(nest, "GET", f"/users/islogged/{token}")
    assert (await sign_in(nest, application, email, PASSWORD)).status_code == 200


async def test_squatter_of_an_address_loses_it_to_its_owner(
    nest: Stack, application: Body, token: str, email: str
) -> None:
    await call(nest, "PUT", "/users/update", status=202, token=token, active=False)
    link = await reset_token(nest, application, email)
    assert (await nest.http.post(f"/reset/{link}", data={"password": OTHER_PASSWORD})).status_code == 200
    assert (await sign_in(nest, application, email, PASSWORD)).status_code == 401
    assert (await nest.http.get(f"/users/islogged/{token}")).status_code == 401
    assert (await sign_in(nest, application, email, OTHER_PASSWORD)).status_code == 200


async def test_unproven_address_opens_no_application_that_needs_proof(nest: Stack, owner: Body, email: str) -> None:
    body = {"owneruuid": owner["uuid"], "appname": "Strict", "verified_only": True}
    application = await call(nest, "POST", "/applications/create", **body)
    await sign_up(nest, application, email)
    refused = await sign_in(nest, application, email, PASSWORD)
    assert (refused.status_code, refused.json()["code"]) == (403, "address_not_verified")
    link = await link_token(nest, email, "Confirm your address")
    # Opening the page proves nothing, pressing its button does.
    assert (await nest.http.get(f"/confirm/{link}")).status_code == 200
    assert (await sign_in(nest, application, email, PASSWORD)).status_code == 403
    assert (await nest.http.post(f"/confirm/{link}")).status_code == 200
    assert (await sign_in(nest, application, email, PASSWORD)).status_code == 200
    assert (await nest.http.post(f"/confirm/{link}")).status_code == 404


async def test_mail_shows_the_name_of_an_application_without_links(nest: Stack, owner: Body, email: str) -> None:
    application = await create_application(nest, owner, "Prize! http://evil.example/win")
    await sign_up(nest, application, email)
    mail = await nest.mail(email)
    assert "Prize http evil example win" in mail.subject
    assert "evil.example" not in f"{mail.text}{mail.html}"


async def test_owner_resets_a_forgotten_password(nest: Stack, email: str) -> None:
    await create_owner(nest, email)
    assert await call(nest, "POST", "/appowner/forgot", status=202, email=email, locale="de") == DONE
    link = await link_token(nest, email, "Neues Passwort")
    assert await call(nest, "POST", "/appowner/reset", status=202, token=link, password=OTHER_PASSWORD) == DONE
    await call(nest, "POST", "/appowner/login", email=email, password=OTHER_PASSWORD)
    assert await reset(nest, link) == (401, "link_not_valid")
