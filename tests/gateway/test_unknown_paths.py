"""Suggestions for unknown paths: the nearest method or route, never text of the client."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest
from starlette.routing import Route

from services.gateway.methods import METHODS
from services.gateway.unknown_paths import MAX_CHARACTERS, UnknownPaths
from services.gateway.versions import VERSIONS
from tests.gateway.conftest import GatewayStack

NEWEST: Final = VERSIONS[-1].date
V1, V2, V3 = METHODS
TEMPLATES: Final = ("/users/signup", "/users/signin", "/healthz", "/reference", "/.well-known/jwks.json")
PATHS: Final = UnknownPaths(
    [
        *(Route(path, lambda _: None) for path in TEMPLATES),
        Route("/appowner/uuid/{rest:path}", lambda _: None, name="/appowner/uuid/{uuid}"),
    ]
)


def suggestion(path: str) -> Any:
    return PATHS.refusal(path).meta.get("did_you_mean")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("send_magic_lnk", "send_magic_link"),
        ("send_magik_link", "send_magic_link"),
        ("sendMagicLink", "send_magic_link"),
        ("send-magic-link", "send_magic_link"),
        ("SEND_MAGIC_LINK", "send_magic_link"),
        ("send_magic_links", "send_magic_link"),
        ("magic_link", "send_magic_link"),
        ("get_users", "get_user"),
        ("gte_user", "get_user"),
        ("get_user/", "get_user"),
        ("authenticate", "authenticate_user"),
        ("subscription_status", "get_subscription_status"),
        ("list_invoice", "list_invoices"),
        ("list_news", "list_news_items"),
        ("create_checkuot", "create_checkout"),
        ("report_usgae", "report_usage"),
        ("x", None),
        ("", None),
        ("login_with_password", None),
        ("drop_table_users", None),
        ("enrol_alpha_user", None),
        ("send_magic_link/ada@example.com", "send_magic_link"),
    ],
)
def test_mistyped_method_gets_the_nearest_one(typed: str, meant: str | None) -> None:
    assert suggestion(f"/1/{V3}/{typed}") == (None if meant is None else f"/1/{V3}/{meant}")


@pytest.mark.parametrize("name", sorted(METHODS[NEWEST]))
def test_every_method_is_found_with_a_letter_missing_doubled_or_swapped(name: str) -> None:
    middle = len(name) // 2
    for typed in (
        name[:middle] + name[middle + 1 :],
        name[:middle] + name[middle] + name[middle:],
        name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :],
    ):
        if typed not in METHODS[NEWEST]:
            assert suggestion(f"/1/{NEWEST}/{typed}") == f"/1/{NEWEST}/{name}", typed


def test_method_of_another_version_is_named_with_its_version() -> None:
    assert suggestion(f"/1/{V2}/create_checkout") == f"/1/{V3}/create_checkout"
    assert suggestion(f"/1/{V2}/create_chekout") == f"/1/{V3}/create_checkout"
    assert suggestion(f"/1/{V1}/get_user") == f"/1/{V3}/get_user"
    # The method of the version that was called comes first.
    assert suggestion(f"/1/{V1}/send_magic_lnk") == f"/1/{V1}/send_magic_link"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/users/sigin", "/users/signin"),
        ("/users/sign_up", "/users/signup"),
        ("/Users/Signup", "/users/signup"),
        ("/healtz", "/healthz"),
        ("/refrence", "/reference"),
        ("/.well-known/jwks", "/.well-known/jwks.json"),
        ("/appowner/uid/secret-token", "/appowner/uuid/{uuid}"),
        ("/send_magic_link", f"/1/{NEWEST}/send_magic_link"),
        ("/wp-login.php", None),
        ("/users/secret-token", None),
        ("/", None),
    ],
)
def test_mistyped_route_gets_the_nearest_one(path: str, meant: str | None) -> None:
    assert suggestion(path) == meant


def test_search_is_bounded() -> None:
    assert suggestion(f"/1/{V3}/" + "send_magic_link" * 1000) is None
    longest = f"/1/{V3}/" + "send_magic_link_" * 20
    began = time.process_time()
    for _ in range(20):
        PATHS.refusal(longest[:MAX_CHARACTERS])
    assert time.process_time() - began < 1.0, "a suggestion must take milliseconds"


async def test_refusal_names_the_path_in_its_message_too(stack: GatewayStack) -> None:
    error = (await stack.http.post(f"/1/{NEWEST}/send_magik_link", json={})).json()
    path = f"/1/{NEWEST}/send_magic_link"
    assert (error["code"], error["meta"]["did_you_mean"]) == ("not_found", path)
    assert error["message"] == f"Nothing is at this path; the nearest one is `{path}`."
    assert "magik" not in str(error)
    frozen = (await stack.http.post("/1/2021-10-06/send_magik_link", json={})).json()
    assert frozen.keys() == {"code", "meta"}
    assert frozen["meta"]["did_you_mean"] == "/1/2021-10-06/send_magic_link"


async def test_another_verb_gets_all_that_the_path_supports(stack: GatewayStack) -> None:
    response = await stack.http.put("/unsubscribe/token")
    assert response.status_code == 405
    assert response.json()["meta"]["supported"] == ["GET", "HEAD", "POST"]
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert response.json()["docs"] == "/reference#error-method_not_supported"
