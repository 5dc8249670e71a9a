"""Owners, applications and their users over HTTP, also by the calls that old clients make."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import jwt
import pytest

from services.auth.accounts.api_keys import api_key
from tests.end_to_end.flows import Mongo, database
from tests.end_to_end.search import documents
from tests.stack import Process, Stack, eventually

PASSWORD = "a long sentence is easy to keep"
OTHER_PASSWORD = "another one is no harder to keep"

Body = dict[str, Any]


async def call(nest: Stack, verb: str, path: str, *, status: int = 200, **body: Any) -> Any:
    response = await nest.http.request(verb, path, json=body or None)
    assert response.status_code == status, response.text
    return response.json()


async def refusal(nest: Stack, verb: str, path: str, **body: Any) -> tuple[int, str]:
    response = await nest.http.request(verb, path, json=body or None)
    return response.status_code, response.json()["code"]


async def create_owner(nest: Stack, email: str, password: str = PASSWORD) -> Body:
    body = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "password": password}
    owner: Body = await call(nest, "POST", "/appowner/create", **body)
    return owner


async def create_application(nest: Stack, owner: Body, appname: str = "An app") -> Body:
    application: Body = await call(nest, "POST", "/applications/create", owneruuid=owner["uuid"], appname=appname)
    return application


async def sign_up(nest: Stack, application: Body, email: str) -> Body:
    body = {"apikey": application["apiKey"], "username": "jbond", "email": email, "password": PASSWORD}
    user: Body = await call(nest, "POST", "/users/signup", status=202, **body)
    return user


def orphans(mongo_client: Mongo, nest: Stack) -> int:
    """Return the number of users whose application does not exist."""
    auth = database(nest, mongo_client, "auth")
    applications = auth["applications"].distinct("_id")
    count: int = auth["application_users"].count_documents({"applicationId": {"$nin": applications}})
    return count


async def test_owner_application_and_user_from_creation_to_deletion(
    nest: Stack, email: str, mongo_client: Mongo
) -> None:
    owner = await create_owner(nest, email)
    shown = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "uuid": owner["uuid"]}
    assert owner == {**shown, "deletion_token": owner["deletion_token"]}
    assert await call(nest, "GET", f"/appowner/uuid/{owner['uuid']}") == shown
    logged_in = await call(nest, "POST", "/appowner/login", email=email, password=PASSWORD)
    assert logged_in == {**owner, "token": logged_in["token"]}

    application = await create_application(nest, owner)
    key = application["apiKey"]
    assert key == api_key(UUID(application["uuid"]))
    assert int(application["enddate"][:4]) == int(application["creationdate"][:4]) + 1

    user = await sign_up(nest, application, email)
    signed_in = await call(nest, "POST", "/users/signwithemail", apikey=key, email=email, password=PASSWORD)
    token = signed_in["token"]
    assert signed_in == {"auth": True, "token": token, "uuid": user["uuid"]}
    assert await call(nest, "GET", f"/users/islogged/{token}") == {"auth": True, "token": token}
    userdata = await call(nest, "POST", "/users/userdata", token=token)
    assert userdata == {**user, "apikey": api_key(UUID(user["uuid"])), "verified": False}

    keys = jwt.PyJWKSet.from_dict((await nest.http.get("/.well-known/jwks.json")).json())
    signing = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, signing, algorithms=["ES256"], options={"verify_aud": False}, issuer=nest.urls[0])
    assert claims["sub"] == claims["id"] == user["uuid"]

    new_password = {"password": OTHER_PASSWORD, "current_password": PASSWORD}
    changed = await call(nest, "PUT", "/users/update", status=202, token=token, username="M", **new_password)
    assert changed == {"done": True, "username": "M", "email": email, "token": changed["token"]}
    assert await call(nest, "GET", f"/users/islogged/{changed['token']}") == {"auth": True, "token": changed["token"]}
    ended = await nest.http.get(f"/users/islogged/{token}")
    assert (ended.status_code, ended.json()["auth"], ended.json()["code"]) == (401, False, "not_logged_in")
    assert ended.json()["message"]

    update = {**{name: shown[name] for name in shown}, "lastname": "King", **new_password}
    updated = await call(nest, "POST", "/appowner/update", status=202, **update)
    assert updated == {"status": 202, "affectedRows": 1}
    none = {"affectedRows": 0, "insertId": 0, "warningStatus": 0}
    deletion = {"deletion_token": owner["deletion_token"], "uuid": owner["uuid"]}
    assert await call(nest, "DELETE", "/appowner/delete", **deletion) == none
    owner = await call(nest, "POST", "/appowner/login", email=email, password=OTHER_PASSWORD)
    assert owner["lastname"] == "King"

    deletion = {"deletion_token": owner["deletion_token"], "uuid": owner["uuid"]}
    assert await call(nest, "DELETE", "/appowner/delete", **deletion) == {**none, "affectedRows": 1}
    gone = await call(nest, "DELETE", "/applications/delete", status=202, apikey=key)
    assert gone == {"affectedRows": 0, "message": "nothing to delete"}
    await eventually(lambda: not orphans(mongo_client, nest))


async def test_refusals_have_status_and_code(nest: Stack, email: str) -> None:
    owner = await create_owner(nest, email)
    application = await create_application(nest, owner)
    key = application["apiKey"]
    user = await sign_up(nest, application, email)
    missing = "00000000-0000-4000-8000-000000000000"
    missing_key = api_key(UUID(missing))
    names = {"firstname": "Ada", "lastname": "Lovelace"}
    signup = {"username": "x", "email": f"x{email}", "password": PASSWORD}

    for verb, path, body, expected in (
        ("POST", "/appowner/create", {**names, "email": email, "password": PASSWORD}, (409, "email_taken")),
        ("POST", "/appowner/create", {**names, "email": "x", "password": PASSWORD}, (422, "validation_failed")),
        (
            "POST",
            "/appowner/create",
            {**names, "email": f"y{email}", "password": "bond007"},
            (422, "validation_failed"),
        ),
        ("POST", "/appowner/create", {**names, "email": {"$gt": ""}, "password": PASSWORD}, (422, "validation_failed")),
        ("GET", f"/appowner/uuid/{missing}", {}, (404, "owner_not_found")),
        ("GET", "/appowner/uuid/x", {}, (422, "validation_failed")),
        ("GET", f"/appowner/emailpassword/{email}/{quote(PASSWORD)}", {}, (404, "not_found")),
        ("POST", "/appowner/login", {"email": email, "password": "wrong"}, (401, "wrong_credentials")),
        ("POST", "/appowner/login", {"email": f"z{email}", "password": PASSWORD}, (401, "wrong_credentials")),
        (
            "POST",
            "/appowner/update",
            {**names, "uuid": missing, "email": email, "password": PASSWORD},
            (404, "owner_not_found"),
        ),
        ("POST", "/applications/create", {"owneruuid": owner["uuid"], "appname": "An app"}, (409, "appname_taken")),
        ("POST", "/applications/create", {"owneruuid": missing, "appname": "An app"}, (404, "owner_not_found")),
        ("DELETE", "/applications/delete", {"apikey": "x"}, (401, "malformed_api_key")),
        ("POST", "/users/signup", {"apikey": "x", **signup}, (401, "malformed_api_key")),
        ("POST", "/users/signup", {"apikey": missing_key, **signup}, (404, "application_not_found")),
        ("POST", "/users/signup", {"apikey": key, **signup, "email": email}, (409, "email_taken")),
        ("POST", "/users/signin", {"apikey": key, "uuid": user["uuid"]}, (403, "password_required")),
        (
            "POST",
            "/users/signwithemail",
            {"apikey": key, "email": email, "password": "wrong"},
            (401, "wrong_credentials"),
        ),
        (
            "POST",
            "/users/signwithemail",
            {"apikey": key, "email": f"z{email}", "password": PASSWORD},
            (401, "wrong_credentials"),
        ),
        ("GET", "/users/islogged/x.y.z", {}, (401, "not_logged_in")),
        ("POST", "/users/userdata", {"token": "x"}, (401, "not_logged_in")),
        ("PUT", "/users/update", {"token": "x", "username": "x"}, (401, "not_logged_in")),
    ):
        assert await refusal(nest, verb, path, **body) == expected, (verb, path)


async def test_ten_wrong_passwords_throttle_an_unknown_network(nest: Stack, email: str) -> None:
    application = await create_application(nest, await create_owner(nest, email))
    key = application["apiKey"]
    await sign_up(nest, application, email)
    right = {"apikey": key, "email": email, "password": PASSWORD}
    # All requests come from the loopback network, from which the user has never logged in.
    wrong = {**right, "password": "wrong"}
    outcomes = [await refusal(nest, "POST", "/users/signwithemail", **wrong) for _ in range(11)]
    assert outcomes == [(401, "wrong_credentials")] * 10 + [(429, "throttled")]
    response = await nest.http.post("/users/signwithemail", json=right)
    assert response.status_code == 429
    assert 0 < int(response.headers["retry-after"]) <= 15 * 60


async def test_calls_of_old_clients_work_as_documented(separate: Stack, mongo_client: Mongo) -> None:
    nest = separate
    password = "theverymuchsecretpasswordofjasonbourne"
    owner = await call(
        nest,
        "POST",
        "/appowner/create",
        firstname="Jason",
        lastname="Bourne",
        email="jbourne@gmail.com",
        password=password,
    )
    uuid = owner["uuid"]
    for path in (f"/appowner/uuid/{uuid}", f"/appowner/emailpassword/jbourne@gmail.com/{password}"):
        found = await call(nest, "GET", path)
        assert found.keys() == {"firstname", "lastname", "email", "deletion_token", "uuid"}
        assert found == owner
    wrong = await nest.http.get("/appowner/emailpassword/jbourne@gmail.com/wrong")
    assert (wrong.status_code, wrong.json()["auth"]) == (401, False)
    names = {"firstname": "Jason", "lastname": "Bourne"}
    update = {"uuid": uuid, **names, "email": "myotheremail@gmail.com", "password": "otherpassword"}
    assert await call(nest, "POST", "/appowner/update", status=202, **update) == {"status": 202, "affectedRows": 1}

    application = await call(nest, "POST", "/applications/create", owneruuid=uuid, appname="my new and awsome app")
    assert application.keys() == {"created", "appname", "creationdate", "enddate", "uuid", "apiKey"}
    key = application["apiKey"]
    user = await call(
        nest,
        "POST",
        "/users/signup",
        status=202,
        apikey=key,
        username="JBond",
        email="j.bond@gmail.com",
        password="bond007",
    )
    assert user.keys() == {"apikey", "uuid", "username", "email", "creationdate", "enddate", "active"}
    signed_in = await call(nest, "POST", "/users/signin", uuid=user["uuid"], apikey=key)
    assert signed_in.keys() == {"auth", "token"}
    body = {"apikey": key, "email": "j.bond@gmail.com", "password": "bond007"}
    signed_in = await call(nest, "POST", "/users/signwithemail", **body)
    assert signed_in.keys() == {"auth", "token", "uuid"}
    token = signed_in["token"]
    assert await call(nest, "GET", f"/users/islogged/{token}") == {"auth": True, "token": token}
    userdata = await call(nest, "POST", "/users/userdata", token=token)
    assert userdata == {**user, "apikey": api_key(UUID(user["uuid"])), "verified": False}
    changed = await call(
        nest,
        "PUT",
        "/users/update",
        status=202,
        token=token,
        username="JAMESBOND",
        email="bond007james@gmail.com",
        active=True,
        password="attheserviceofhisgracefulmajesty",
    )
    token = changed.pop("token")
    assert changed == {"done": True, "username": "JAMESBOND", "email": "bond007james@gmail.com"}
    assert await call(nest, "GET", f"/users/islogged/{token}") == {"auth": True, "token": token}

    deleted = await call(nest, "DELETE", "/applications/delete", status=202, apikey=key)
    assert deleted == {"affectedRows": 1, "message": "All auth users of this application are deleted too"}
    deletion_token = (await call(nest, "GET", f"/appowner/uuid/{uuid}"))["deletion_token"]
    deleted = await call(nest, "DELETE", "/appowner/delete", deletion_token=deletion_token, uuid=uuid)
    assert deleted == {"affectedRows": 1, "insertId": 0, "warningStatus": 0}
    await eventually(lambda: not orphans(mongo_client, nest))


async def test_claims_of_an_ended_token_open_no_login(separate: Stack, email: str) -> None:
    """Old clients log in with two IDs. Tokens of earlier releases show both: ``aud`` was the UUID of the API key."""
    nest = separate
    application = await create_application(nest, await create_owner(nest, email))
    user = await sign_up(nest, application, email)
    key = api_key(UUID(application["uuid"]))
    signed_in = await call(nest, "POST", "/users/signin", uuid=user["uuid"], apikey=key)
    claims = jwt.decode(signed_in["token"], options={"verify_signature": False})

    await call(nest, "PUT", "/users/update", status=202, token=signed_in["token"], password=OTHER_PASSWORD)

    assert claims["sub"] == user["uuid"]
    for apikey in (key, key.lower()):
        refused = await refusal(nest, "POST", "/users/signin", uuid=claims["sub"], apikey=apikey)
        assert refused == (403, "password_required")
    body = {"apikey": key, "email": email, "password": OTHER_PASSWORD}
    await call(nest, "POST", "/users/signwithemail", **body)


async def test_no_credential_in_a_path_is_logged_or_stored(separate: Stack, email: str, mongo_client: Mongo) -> None:
    nest = separate
    owner = await create_owner(nest, email)
    application = await create_application(nest, owner)
    user = await sign_up(nest, application, email)
    token = (await call(nest, "POST", "/users/signin", uuid=user["uuid"], apikey=application["apiKey"]))["token"]
    in_path = quote(PASSWORD, safe="")
    for path in (
        f"/appowner/emailpassword/{email}/{in_path}",
        f"//appowner/emailpassword/{email}/{in_path}",
        f"/appowner/emailpassword/{email}/{in_path}/more",
        f"/APPOWNER/emailpassword/{email}/{in_path}",
        f"/appowner%2Femailpassword/{email}/{in_path}",
        f"/users/islogged/{token}",
        f"/users/islogged/{token}/",
        f"/1/2021-10-06/{token}",
    ):
        for verb in ("GET", "POST", "HEAD", "OPTIONS"):
            headers = {"x-request-id": in_path, "traceparent": token}
            await nest.http.request(verb, f"{nest.urls[0]}{path}", headers=headers)

    logs = "".join(process.log for process in nest.processes.values())
    stored = b"".join(documents(nest, mongo_client).values()).decode()
    assert logs.count("old clients are served") >= 2
    assert user["uuid"] in stored
    for secret in (PASSWORD, in_path, token, owner["deletion_token"], application["apiKey"]):
        assert secret not in logs
        assert secret not in stored


@pytest.mark.parametrize(("rounds", "sign_ups"), [(3, 30), pytest.param(20, 50, marks=pytest.mark.slow)])
async def test_no_user_outlives_an_application_that_is_deleted_amid_sign_ups(
    nest: Stack, mongo_client: Mongo, tmp_path: Path, rounds: int, sign_ups: int
) -> None:
    owner = await create_owner(nest, f"{rounds}@example.com")
    # The sign-ups and the deletion are handled by two instances of auth.
    second = Process("auth", nest.environment, tmp_path / "auth-2.log")
    await second.start()
    accepted = refused = 0
    try:
        await eventually(lambda: "started" in second.log, within=60)
        limits = httpx.Limits(max_connections=sign_ups + 1)
        async with httpx.AsyncClient(base_url=nest.urls[0], timeout=60.0, limits=limits) as http:
            for number in range(10 * rounds):
                # On a fast machine all sign-ups of a few rounds may precede the deletion.
                if number >= rounds and accepted and refused:
                    break
                statuses = await _delete_amid_sign_ups(nest, http, owner, number, sign_ups=sign_ups)
                accepted, refused = accepted + statuses.count(202), refused + statuses.count(404)
        await eventually(lambda: not orphans(mongo_client, nest), what="deletion of the users")
    finally:
        await second.stop()
    assert accepted
    assert refused


async def _delete_amid_sign_ups(
    nest: Stack, http: httpx.AsyncClient, owner: Body, number: int, *, sign_ups: int
) -> list[int]:
    """Delete an application after ``number`` sign-ups were accepted; return the statuses of all sign-ups."""
    application = await create_application(nest, owner, f"App {number}")
    key = application["apiKey"]
    accepted = asyncio.Semaphore(0)

    async def sign_up_once(person: int) -> int:
        body = {"apikey": key, "username": "x", "email": f"{person}@example.com", "password": PASSWORD}
        while True:
            status = (await http.post("/users/signup", json=body)).status_code
            if status == 202:
                accepted.release()
            if status != 503:
                return status

    async def delete() -> int:
        for _ in range(number):
            await accepted.acquire()
        return (
            await http.request("DELETE", "/applications/delete", json={"apikey": key, "password": PASSWORD})
        ).status_code

    deleted, *statuses = await asyncio.gather(delete(), *(sign_up_once(person) for person in range(sign_ups)))
    assert deleted == 202
    assert set(statuses) <= {202, 404}
    return statuses
