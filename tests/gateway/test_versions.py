"""Dated versions: published ones are frozen, and newer ones explain their errors."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from services.gateway import errors as gateway_errors
from services.gateway.error_messages import MESSAGES, NEAREST_MESSAGE, OTHER_MESSAGE
from services.gateway.errors import AccessTokenExpired, RequestIncomplete, Unauthorized
from services.gateway.methods import METHODS
from services.gateway.responses import refusal_response
from services.gateway.versions import VERSIONS, error_anchor, error_body, version_of
from services.reference.document import document
from services.reference.operations import operations
from services.reference.responses import REASONS
from shared.errors import Refusal
from tests.gateway.conftest import LINK, GatewayStack
from tests.gateway.fake_services import Refused

FROZEN: Final = Path(__file__).parent / "frozen_versions.json"
"""Methods of the frozen versions, as ``described`` returned them when the next version was published."""
NEWEST: Final = VERSIONS[-1].date
PLAIN: Final = {"2020-12-14", "2021-10-06"}
"""Versions that were frozen before errors had ``message`` and ``docs``."""
SENTENCE: Final = re.compile(r"[A-Z][^.]*(\.[a-z_0-9]+[^.]*)*\.")
Described = dict[str, Any]


def described(path: str, openapi: dict[str, Any]) -> Described:
    """What clients of a method rely on: fields and types of request and response, statuses and codes."""
    operation = openapi["paths"][path]["post"]
    responses = {status: resolve(openapi, each) for status, each in operation["responses"].items()}
    body = operation.get("requestBody", {})
    found: Described = {
        "access": operation["security"],
        "request": {
            name: types for content in body.get("content", {}).values() for name, types in fields(openapi, content)
        },
        "required": sorted(
            name
            for content in body.get("content", {}).values()
            for name in resolve(openapi, content["schema"]).get("required", [])
        ),
        "responses": {},
    }
    for status, response in sorted(responses.items()):
        for content in response.get("content", {}).values():
            properties = resolve(openapi, content["schema"]).get("properties", {})
            codes = properties.get("code", {}).get("enum")
            found["responses"][status] = (
                {"codes": sorted(codes), "fields": sorted(properties)} if codes else dict(fields(openapi, content))
            )
        found["responses"].setdefault(status, None)
    return found


Types = list[str]
"""Alternative types, formats or values of a field."""


def fields(openapi: dict[str, Any], content: dict[str, Any]) -> list[tuple[str, Types]]:
    """Dotted names and types of all fields of a body."""
    return _fields(openapi, content["schema"], "", ())


def _fields(
    openapi: dict[str, Any], schema: dict[str, Any], name: str, inside: tuple[str, ...]
) -> list[tuple[str, Types]]:
    reference = schema.get("$ref", "")
    if reference in inside:
        return []
    schema, inside = resolve(openapi, schema), (*inside, reference) if reference else inside
    members = schema.get("anyOf", schema.get("oneOf"))
    if members:
        found = [each for member in members for each in _fields(openapi, member, name, inside)]
        own = sorted({each for path, types in found if path == name for each in types})
        return [(name, own), *((path, types) for path, types in found if path != name)]
    own_type = schema.get("const", schema.get("enum", schema.get("format", schema.get("type", "any"))))
    found = [(name, sorted(map(str, own_type)) if isinstance(own_type, list) else [str(own_type)])]
    for field, each in schema.get("properties", {}).items():
        found += _fields(openapi, each, f"{name}.{field}".lstrip("."), inside)
    if schema.get("type") == "array":
        found += _fields(openapi, schema.get("items", {}), f"{name}[]", inside)
    return found


def resolve(openapi: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = openapi
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = {**target, **{name: each for name, each in node.items() if name != "$ref"}}
    return node


def frozen() -> dict[str, dict[str, Described]]:
    found: dict[str, dict[str, Described]] = json.loads(FROZEN.read_text("utf-8"))
    return found


def missing(before: Any, now: Any, path: str = "") -> list[str]:
    """What a description no longer has. Clients ignore fields, codes and enumerated values that they do not know."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [each for name in before for each in missing(before[name], now.get(name), f"{path}/{name}")]
    if isinstance(before, list) and isinstance(now, list) and not path.endswith(("/required", "/access")):
        return [f"{path}: {each}" for each in before if each not in now]
    if isinstance(before, str) and isinstance(now, str) and _types(before) <= _types(now) and "[" in before:
        return []
    return [] if before == now else [f"{path}: {before!r} is now {now!r}"]


def _types(described_types: str) -> set[str]:
    """The types of a field, each value of an enumeration among them: ``["a", "b"] | null``."""
    found: set[str] = set()
    for each in described_types.split(" | "):
        found |= {f"= {value}" for value in json.loads(each)} if each.startswith("[") else {each}
    return found


def test_versions_are_in_order_and_each_has_methods() -> None:
    dates = [version.date for version in VERSIONS]
    assert dates == sorted(dates) == list(METHODS)


@pytest.mark.parametrize("version", [version.date for version in VERSIONS[:-1]])
def test_older_versions_are_frozen(version: str) -> None:
    openapi = document()
    now = {name: described(f"/1/{version}/{name}", openapi) for name in METHODS[version]}
    assert set(now) == set(frozen()[version]), "add methods to the newest version"
    assert missing(frozen()[version], now) == [], "clients rely on it: change the newest version instead"


def test_change_of_a_frozen_version_is_noticed() -> None:
    method = frozen()["2021-10-06"]["get_user"]
    for path, changed in (
        (("request",), {}),
        (("required",), ["user_id", "more"]),
        (("responses", "200", "id"), ["integer"]),
        (("responses", "404", "codes"), ["user_not_found"]),
        (("responses", "404", "fields"), ["code"]),
    ):
        other = json.loads(json.dumps(method))
        part = other
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = changed
        assert missing(method, other), path


def test_enumeration_may_get_more_values_but_lose_none() -> None:
    assert missing('["a", "b"] | null', '["a", "b", "c"] | null') == []
    for changed in ('["a"] | null', '["a", "b"]', "null | string"):
        assert missing('["a", "b"] | null', changed), changed
    assert missing("string", "null | string")


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/1/2026-12-01/get_user", "2026-12-01"),
        ("/1/2026-12-01/", "2026-12-01"),
        ("/1/2026-12-01", "2026-12-01"),
        ("/2/2026-12-01/get_user", ""),
        ("/users/signin", ""),
        ("/", ""),
        ("", ""),
        ("*", ""),
    ],
)
def test_version_is_the_second_segment_of_a_versioned_path(path: str, version: str) -> None:
    assert version_of(path) == version


def refusals() -> set[type[Refusal]]:
    """All refusals that a caller may receive."""
    own = {each for each in vars(gateway_errors).values() if isinstance(each, type) and issubclass(each, Refusal)}
    declared = {each for operation in operations() for each in operation.refusals}
    return (own | declared | set(REASONS)) - {Refusal, gateway_errors.HttpRefusal, RequestIncomplete}


def test_every_code_has_a_message_of_one_sentence() -> None:
    assert {each.code for each in refusals()} ^ set(MESSAGES) == set()
    nearest = NEAREST_MESSAGE.format("/1/2026-12-01/get_user")
    for code, message in {**MESSAGES, "other": OTHER_MESSAGE, "nearest": nearest}.items():
        assert SENTENCE.fullmatch(message), code
        assert len(message) <= 120, code


@pytest.mark.parametrize("version", ["", "latest", *METHODS])
def test_errors_have_the_format_of_their_version(version: str) -> None:
    body = json.loads(refusal_response(Unauthorized(reasons=(AccessTokenExpired(),)), "r1", version).body)
    plain = {"code": "unauthorized", "reasons": [{"code": "token_expired"}], "meta": {"request_id": "r1"}}
    if version in PLAIN:
        assert body == plain
        return
    reason = {"code": "token_expired", "message": MESSAGES["token_expired"], "docs": "/reference#error-token_expired"}
    explanation = {"message": MESSAGES["unauthorized"], "docs": "/reference#error-unauthorized"}
    assert body == {**plain, **explanation, "reasons": [reason]}


def test_code_of_a_newer_service_has_a_message_too() -> None:
    assert error_body({"code": "from_the_future"}, NEWEST) == {
        "code": "from_the_future",
        "message": OTHER_MESSAGE,
        "docs": "/reference#error-from_the_future",
    }


@pytest.mark.parametrize("version", METHODS)
async def test_body_of_a_services_refusal_is_the_same_byte_for_byte(stack: GatewayStack, version: str) -> None:
    message = METHODS[version]["send_magic_link"].message
    assert message is not None
    stack.services.replies[message.wire] = lambda _: Refused("not_found", "client_not_found", fact=1)
    headers = {"x-request-id": "mine"}
    response = await stack.http.post(f"/1/{version}/send_magic_link", json=LINK, headers=headers)
    explanation = (
        b'"message": "%s", "docs": "/reference#error-client_not_found", ' % MESSAGES["client_not_found"].encode()
    )
    rest = b'"meta": {"fact": 1, "request_id": "mine"}}'
    assert response.content == b'{"code": "client_not_found", ' + (b"" if version in PLAIN else explanation) + rest


@pytest.mark.parametrize("version", METHODS)
@pytest.mark.parametrize(
    ("request_line", "content", "code"),
    [
        ("POST no_such_method", b"{}", "not_found"),
        ("GET send_magic_link", b"", "method_not_supported"),
        ("POST list_news_items", b"", "body_missing"),
        ("POST list_news_items", b"[", "malformed_body"),
        ("POST list_news_items", b"{}", "validation_failed"),
        ("POST list_news_items", b"x" * 70_000, "body_too_large"),
        ("POST get_subscription_status", b"{}", "access_denied"),
    ],
)
async def test_every_layer_answers_in_the_format_of_the_version(
    stack: GatewayStack, version: str, request_line: str, content: bytes, code: str
) -> None:
    verb, name = request_line.split()
    response = await stack.http.request(verb, f"/1/{version}/{name}", content=content)
    error = response.json()
    assert error["code"] == code
    assert ("message" in error, "docs" in error) == (version not in PLAIN, version not in PLAIN)


@pytest.mark.parametrize("version", METHODS)
async def test_requests_refused_before_the_app_have_the_format_too(stack: GatewayStack, version: str) -> None:
    for refused, status in (
        ("x-large: " + "x" * 20_000, 431),
        ("content-length: 1\r\ntransfer-encoding: chunked", 400),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        writer.write(f"POST /1/{version}/send_magic_link HTTP/1.1\r\nhost: nest\r\n{refused}\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert int(head.split()[1]) == status
        assert ("message" in json.loads(body)) == (version not in PLAIN)


async def test_docs_lead_to_an_anchor_on_the_page(stack: GatewayStack) -> None:
    page = (await stack.http.get("/reference")).text
    for code in MESSAGES:
        assert f'id="{error_anchor(code)}"' in page


def _freeze() -> None:
    """Write the descriptions of the older versions. Run it once, when a new version is published."""
    openapi = document()
    versions = [version.date for version in VERSIONS[:-1]]
    found = {date: {name: described(f"/1/{date}/{name}", openapi) for name in METHODS[date]} for date in versions}
    FROZEN.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    _freeze()
