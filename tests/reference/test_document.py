from __future__ import annotations

import json
from typing import Any, Final
from unittest.mock import Mock

import pytest
from starlette.routing import Route

from services.gateway.app import Gateway
from services.gateway.methods import PATHS
from services.gateway.settings import GatewaySettings
from services.reference.__main__ import WRITTEN, text
from services.reference.document import document
from services.reference.operations import operations
from tests.deploy.environments import STAND_INS, settings

SERVING_ALL: Final = {
    **STAND_INS,
    "NEST_ENVIRONMENT": "test",
    "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "NEST_ISSUER": "https://nest.example",
    "NEST_STRIPE_LIVEMODE": "false",
    "NEST_OLD_CLIENTS": "true",
    "NEST_TEST_LOGIN": "true",
}
ELSEWHERE: Final = "/"
"""The page of ``/accounts`` once more, where nothing else stands."""


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return document()


def described(whole: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for verbs in whole["paths"].values() for operation in verbs.values()]


def test_what_is_served_is_what_the_code_says() -> None:
    assert WRITTEN.read_text("utf-8") == text(), "run `make reference`"


def test_every_method_is_described(whole: dict[str, Any]) -> None:
    assert set(PATHS) <= set(whole["paths"])


def test_no_two_operations_have_one_name(whole: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in described(whole)]
    assert len(names) == len(set(names))


def test_every_operation_says_what_it_does(whole: dict[str, Any]) -> None:
    for operation in described(whole):
        assert operation["summary"], operation["operationId"]
        assert not operation["summary"].endswith("."), operation["operationId"]


def test_nothing_of_the_bus_is_told(whole: dict[str, Any]) -> None:
    for operation in operations():
        if operation.message is not None:
            assert "key" not in whole["components"]["schemas"][operation.message.__name__]["properties"]
    assert "``" not in json.dumps(whole)


def test_every_reference_leads_somewhere(whole: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*(references(each) for each in part.values()))
        return set().union(*(references(each) for each in part)) if isinstance(part, list) else set()

    for reference in references(whole):
        found = whole
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


def test_requests_take_no_other_fields(whole: dict[str, Any]) -> None:
    for operation in operations():
        if operation.message is not None:
            assert whole["components"]["schemas"][operation.message.__name__]["additionalProperties"] is False


def test_every_route_of_the_gateway_is_described_and_no_other(whole: dict[str, Any]) -> None:
    chosen = settings("gateway", SERVING_ALL)
    assert isinstance(chosen, GatewaySettings)
    gateway, parts = Gateway(chosen), Mock()
    served = {
        (route.path_regex, verb.lower())
        for route in gateway._routes(parts, parts, parts).routes
        if isinstance(route, Route) and route.path != ELSEWHERE
        for verb in (route.methods or set()) - {"HEAD"}
    }
    told = {(path, verb) for path, verbs in whole["paths"].items() for verb in verbs if path not in PATHS}
    untold = [pattern.pattern for pattern, verb in served if not any(v == verb and pattern.match(p) for p, v in told)]
    assert not untold
    unserved = [path for path, verb in told if not any(v == verb and pattern.match(path) for pattern, v in served)]
    assert not unserved
