"""Owners, applications and their users, as clients meet them; old ones too, by the calls of their documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import jwt
import pytest
from pymongo import MongoClient

from services.auth.accounts.api_keys import api_key
from tests.stack import Process, Stack, eventually, running_stack

PASSWORD = "a long sentence is easy to keep"
OTHER_PASSWORD = "another one is no harder to keep"
CHEAP = {"NEST_PASSWORD_MEMORY": "1", "NEST_PASSWORD_PASSES": "1", "NEST_PASSWORD_WAIT_SECONDS": "60"}
"""So that a hash takes a millisecond; what a real one takes, the tests of passwords show."""
OLD_CLIENTS = {"NEST_OLD_CLIENTS": "true"}

Body = dict[str, Any]
Database = MongoClient[dict[str, Any]]


@pytest.fixture(scope="session")
async def accounts(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A Nest whose auth and gateway are processes of their own, with logs to look into."""
    async with _running(tmp_path_factory, kafka_bootstrap, mongo_url, unique()) as stack:
        yield stack


@pytest.fixture(scope="session")
async def old(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """The same, serving old clients."""
    async with _running(tmp_path_factory, kafka_bootstrap, mongo_url, unique(), **OLD_CLIENTS) as stack:
        yield stack


@asynccontextmanager
async def _running(
    folders: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, prefix: str, **settings: str
) -> AsyncIterator[Stack]:
    async with running_stack(
        folders.mktemp("nest"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        separate=("auth", "gateway"),
        settings={**CHEAP, **settings},
    ) as stack:
        yield stack


async def call(nest: Stack, verb: str, path: str, *, status: int = 200, **body: Any) -> Any:
    answer = await nest.http.request(verb, path, json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()


async def refused(nest: Stack, verb: str, path: str, **body: Any) -> tuple[int, str]:
    answer = await nest.http.request(verb, path, json=body or None)
    return answer.status_code, answer.json()["code"]


async def an_owner(nest: Stack, email: str, password: str = PASSWORD) -> Body:
    body = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "password": password}
    owner: Body = await call(nest, "POST", "/appowner/create", **body)
    return owner


async def an_application(nest: Stack, owner: Body, appname: str = "An app", **more: Any) -> Body:
    application: Body = await call(
        nest, "POST", "/applications/create", owneruuid=owner["uuid"], appname=appname, **more
    )
    return application


async def a_user(nest: Stack, application: Body, email: str) -> Body:
    body = {"apikey": application["apiKey"], "username": "jbond", "email": email, "password": PASSWORD}
    user: Body = await call(nest, "POST", "/users/signup", status=202, **body)
    return user


def orphans(mongo_client: Database, nest: Stack) -> int:
    """How many users have no application."""
    database = mongo_client[f"{nest.environment['NEST_DATABASE_PREFIX']}auth"]
    applications = database["applications"].distinct("_id")
    return database["application_users"].count_documents({"applicationId": {"$nin": applications}})


async def test_the_life_of_an_owner_an_application_and_a_user(
    accounts: Stack, email: str, mongo_client: Database
) -> None:
    nest = accounts
    owner = await an_owner(nest, email)
    shown = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "uuid": owner["uuid"]}
    assert owner == {**shown, "deletion_token": owner["deletion_token"]}
    assert await call(nest, "GET", f"/appowner/uuid/{owner['uuid']}") == shown
    owner = await call(nest, "POST", "/appowner/login", email=email, password=PASSWORD)

    application = await an_application(nest, owner)
    key = application["apiKey"]
    assert key == api_key(UUID(application["uuid"]))
    assert int(application["enddate"][:4]) == int(application["creationdate"][:4]) + 1

    user = await a_user(nest, application, email)
    answer = await call(nest, "POST", "/users/signwithemail", apikey=key, email=email, password=PASSWORD)
    token = answer["token"]
    assert answer == {"auth": True, "token": token, "uuid": user["uuid"]}
    assert await call(nest, "GET", f"/users/islogged/{token}") == {"auth": True, "token": token}
    assert await call(nest, "POST", "/users/userdata", token=token) == user

    keys = jwt.PyJWKSet.from_dict((await nest.http.get("/.well-known/jwks.json")).json())
    signing = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, signing, algorithms=["ES256"], audience=application["uuid"], issuer=nest.urls[0])
    assert claims["sub"] == user["uuid"]

    changed = await call(nest, "PUT", "/users/update", status=202, token=token, username="M", password=OTHER_PASSWORD)
    assert changed == {"done": True, "username": "M", "email": email}
    ended = await nest.http.get(f"/users/islogged/{token}")
    assert (ended.status_code, ended.json()["auth"], ended.json()["code"]) == (401, False, "not_logged_in")
    assert ended.json()["message"]

    update = {**{name: shown[name] for name in shown}, "lastname": "King", "password": OTHER_PASSWORD}
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


async def test_every_refusal_has_its_status_and_code(accounts: Stack, email: str) -> None:
    nest = accounts
    owner = await an_owner(nest, email)
    application = await an_application(nest, owner)
    key = application["apiKey"]
    user = await a_user(nest, application, email)
    nobody = "00000000-0000-4000-8000-000000000000"
    nobodys_key = api_key(UUID(nobody))
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
        ("GET", f"/appowner/uuid/{nobody}", {}, (404, "owner_not_found")),
        ("GET", "/appowner/uuid/x", {}, (422, "validation_failed")),
        ("GET", f"/appowner/emailpassword/{email}/{quote(PASSWORD)}", {}, (404, "not_found")),
        ("POST", "/appowner/login", {"email": email, "password": "wrong"}, (401, "wrong_credentials")),
        ("POST", "/appowner/login", {"email": f"z{email}", "password": PASSWORD}, (401, "wrong_credentials")),
        (
            "POST",
            "/appowner/update",
            {**names, "uuid": nobody, "email": email, "password": PASSWORD},
            (404, "owner_not_found"),
        ),
        ("POST", "/applications/create", {"owneruuid": owner["uuid"], "appname": "An app"}, (409, "appname_taken")),
        ("POST", "/applications/create", {"owneruuid": nobody, "appname": "An app"}, (404, "owner_not_found")),
        ("DELETE", "/applications/delete", {"apikey": "x"}, (401, "malformed_api_key")),
        ("POST", "/users/signup", {"apikey": "x", **signup}, (401, "malformed_api_key")),
        ("POST", "/users/signup", {"apikey": nobodys_key, **signup}, (404, "application_not_found")),
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
        assert await refused(nest, verb, path, **body) == expected, (verb, path)


async def test_ten_wrong_passwords_are_enough_and_end_no_login(accounts: Stack, email: str) -> None:
    application = await an_application(accounts, await an_owner(accounts, email))
    key = application["apiKey"]
    await a_user(accounts, application, email)
    right = {"apikey": key, "email": email, "password": PASSWORD}
    # The addresses of this machine's loopback network are one place; the user has not logged in from it.
    wrong = {**right, "password": "wrong"}
    outcomes = [await refused(accounts, "POST", "/users/signwithemail", **wrong) for _ in range(11)]
    assert outcomes == [(401, "wrong_credentials")] * 10 + [(429, "throttled")]
    answer = await accounts.http.post("/users/signwithemail", json=right)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 15 * 60


async def test_every_call_of_the_old_documents_works_as_written(old: Stack, mongo_client: Database) -> None:
    nest = old
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
        assert {**found, "deletion_token": ""} == {**owner, "deletion_token": ""}
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
    answer = await call(nest, "POST", "/users/signin", uuid=user["uuid"], apikey=key)
    assert answer.keys() == {"auth", "token"}
    answer = await call(nest, "POST", "/users/signwithemail", apikey=key, email="j.bond@gmail.com", password="bond007")
    assert answer.keys() == {"auth", "token", "uuid"}
    token = answer["token"]
    assert await call(nest, "GET", f"/users/islogged/{token}") == {"auth": True, "token": token}
    assert await call(nest, "POST", "/users/userdata", token=token) == user
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
    assert changed == {"done": True, "username": "JAMESBOND", "email": "bond007james@gmail.com"}

    deleted = await call(nest, "DELETE", "/applications/delete", status=202, apikey=key)
    assert deleted == {"affectedRows": 1, "message": "All auth users of this application are deleted too"}
    deletion_token = (await call(nest, "GET", f"/appowner/uuid/{uuid}"))["deletion_token"]
    deleted = await call(nest, "DELETE", "/appowner/delete", deletion_token=deletion_token, uuid=uuid)
    assert deleted == {"affectedRows": 1, "insertId": 0, "warningStatus": 0}
    await eventually(lambda: not orphans(mongo_client, nest))


async def test_nothing_that_lets_somebody_in_is_in_a_log_or_at_rest(
    old: Stack, email: str, mongo_client: Database
) -> None:
    owner = await an_owner(old, email)
    application = await an_application(old, owner)
    user = await a_user(old, application, email)
    answer = await call(old, "POST", "/users/signin", uuid=user["uuid"], apikey=application["apiKey"])
    in_path = quote(PASSWORD, safe="")
    for path in (
        f"/appowner/emailpassword/{email}/{in_path}",
        f"//appowner/emailpassword/{email}/{in_path}",
        f"/appowner/emailpassword/{email}/{in_path}/more",
        f"/APPOWNER/emailpassword/{email}/{in_path}",
        f"/appowner%2Femailpassword/{email}/{in_path}",
        f"/users/islogged/{answer['token']}",
        f"/users/islogged/{answer['token']}/",
        f"/1/2021-10-06/{answer['token']}",
    ):
        url = f"{old.urls[0]}{path}"
        for verb in ("GET", "POST", "HEAD", "OPTIONS"):
            await old.http.request(verb, url, headers={"x-request-id": in_path, "traceparent": answer["token"]})

    logs = "".join(process.log for process in old.processes.values())
    prefix = old.environment["NEST_DATABASE_PREFIX"]
    held = "".join(
        str(document)
        for name in mongo_client.list_database_names()
        if name.startswith(prefix)
        for collection in mongo_client[name].list_collection_names()
        for document in mongo_client[name][collection].find()
    )
    assert logs.count("old clients are served") >= 2
    assert held
    for secret in (PASSWORD, in_path, answer["token"], owner["deletion_token"], application["apiKey"]):
        assert secret not in logs
        assert secret not in held


async def _race(nest: Stack, http: httpx.AsyncClient, owner: Body, n: int, *, sign_ups: int) -> tuple[int, int]:
    """Sign-ups, and a deletion among them; returns how many of them were taken, and how many refused."""
    application = await an_application(nest, owner, f"App {n}")
    key = application["apiKey"]

    async def sign_up(m: int) -> int:
        body = {"apikey": key, "username": "x", "email": f"{m}@example.com", "password": PASSWORD}
        while True:
            status = (await http.post("/users/signup", json=body)).status_code
            if status != 503:
                return status

    async def delete() -> int:
        # Somewhere among them, at another place in each round.
        await asyncio.sleep(0.004 * n)
        return (await http.request("DELETE", "/applications/delete", json={"apikey": key})).status_code

    deleted, *statuses = await asyncio.gather(delete(), *(sign_up(m) for m in range(sign_ups)))
    assert deleted == 202
    assert set(statuses) <= {202, 404}
    return statuses.count(202), statuses.count(404)


@pytest.mark.parametrize(("rounds", "sign_ups"), [(3, 50), pytest.param(20, 50, marks=pytest.mark.slow)])
async def test_no_user_outlives_an_application_that_is_deleted_amid_sign_ups(
    accounts: Stack, mongo_client: Database, tmp_path: Any, rounds: int, sign_ups: int
) -> None:
    """With two instances of auth, so that sign-ups and deletion are not in one process."""
    owner = await an_owner(accounts, f"{rounds}@example.com")
    second = Process("auth", accounts.environment, tmp_path / "auth-2.log")
    await second.start()
    taken = gone = 0
    try:
        await eventually(lambda: "started" in second.log, within=60)
        async with httpx.AsyncClient(
            base_url=accounts.urls[0], timeout=60.0, limits=httpx.Limits(max_connections=sign_ups + 1)
        ) as http:
            for n in range(rounds):
                done, refused_ = await _race(accounts, http, owner, n, sign_ups=sign_ups)
                taken, gone = taken + done, gone + refused_
        await eventually(lambda: not orphans(mongo_client, accounts), what="orphans")
    finally:
        await second.stop()
    assert taken
    assert gone
