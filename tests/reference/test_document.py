"""The OpenAPI document: complete, described, and free of constructs that client generators cannot handle."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from unittest.mock import Mock

import pytest
from pydantic import BaseModel
from starlette.routing import Route

from services.gateway.app import Gateway
from services.gateway.methods import PATHS
from services.gateway.settings import GatewaySettings
from services.reference.__main__ import OUTPUT, document_text
from services.reference.document import document
from services.reference.operations import Operation, operations
from shared import messages
from tests.deploy.environments import STAND_INS, settings

ALL_ROUTES: Final = {
    **STAND_INS,
    "NEST_ENVIRONMENT": "test",
    "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "NEST_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "NEST_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "NEST_KAFKA_USER": "nest-gateway",
    "NEST_ISSUER": "https://nest.example",
    "NEST_STRIPE_LIVEMODE": "false",
    "NEST_OLD_CLIENTS": "true",
    "NEST_TEST_LOGIN": "true",
}
"""Settings of a gateway with all optional routes."""
UNDESCRIBED: Final = {"/", "/reference/static/{path:path}"}
"""A second path of the page ``/accounts``, and the style sheet and scripts of the reference's pages."""
MESSAGE_OPERATIONS: Final = [each for each in operations() if each.message is not None]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return document()


def operation_objects(openapi: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for verbs in openapi["paths"].values() for operation in verbs.values()]


def nodes(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects of the document with their paths, examples excepted."""
    if isinstance(part, dict):
        yield path, part
        for name, each in part.items():
            if name != "example":
                yield from nodes(each, f"{path}/{name}")
    elif isinstance(part, list):
        for index, each in enumerate(part):
            yield from nodes(each, f"{path}/{index}")


def resolve(openapi: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = openapi
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def error_codes(openapi: dict[str, Any], operation: dict[str, Any], status: str) -> list[str]:
    media = resolve(openapi, operation["responses"][status])["content"]["application/json"]
    codes: list[str] = resolve(openapi, media["schema"])["properties"]["code"]["enum"]
    return codes


def test_served_document_is_up_to_date() -> None:
    assert OUTPUT.read_text("utf-8") == document_text(), "run `make reference`"


def test_all_methods_are_described(openapi: dict[str, Any]) -> None:
    assert set(PATHS) <= set(openapi["paths"])


def test_operation_ids_are_unique(openapi: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operation_objects(openapi)]
    assert len(names) == len(set(names))


def test_summaries_are_short_and_start_with_a_capital(openapi: dict[str, Any]) -> None:
    for operation in operation_objects(openapi):
        assert re.fullmatch(r"[A-Z][^.]{3,79}", operation["summary"]), operation["operationId"]


def test_every_property_and_parameter_has_a_description(openapi: dict[str, Any]) -> None:
    missing = [
        f"{path}/properties/{name}"
        for path, node in nodes(openapi)
        for name, schema in (node.get("properties") or {}).items()
        if isinstance(schema, dict) and not schema.get("description")
    ]
    missing += [
        f"{operation['operationId']}: {parameter['name']}"
        for operation in operation_objects(openapi)
        for parameter in (resolve(openapi, each) for each in operation["parameters"])
        if not parameter.get("description")
    ]
    assert not missing


def test_every_component_schema_has_a_description(openapi: dict[str, Any]) -> None:
    # JsonValue is pydantic's name for any value.
    missing = [name for name, schema in openapi["components"]["schemas"].items() if not schema.get("description")]
    assert missing == ["JsonValue"]


def test_descriptions_are_markdown(openapi: dict[str, Any]) -> None:
    assert "``" not in json.dumps(openapi)
    assert not re.search(r"\bNone\b", json.dumps(openapi))


def test_ordering_keys_are_not_described(openapi: dict[str, Any]) -> None:
    for operation in MESSAGE_OPERATIONS:
        assert operation.message is not None
        assert "key" not in openapi["components"]["schemas"][operation.message.__name__]["properties"]


def test_model_names_are_unique(openapi: dict[str, Any]) -> None:
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(messages.__path__, f"{messages.__name__}.")
    ]
    models = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__.startswith(messages.__name__)
    }
    assert [name for name, count in Counter(model.__name__ for model in models).items() if count > 1] == []
    # Pydantic puts the module in front of a name that is not unique, with two underscores.
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]+", name) for name in openapi["components"]["schemas"])


def test_every_reference_resolves(openapi: dict[str, Any]) -> None:
    for _, node in nodes(openapi):
        if isinstance(node.get("$ref"), str):
            resolve(openapi, node)


def test_fields_with_a_default_are_optional_and_described(openapi: dict[str, Any]) -> None:
    found = openapi["components"]["schemas"]["ListInvoices"]
    assert "limit" not in found.get("required", ())
    assert found["properties"]["limit"]["description"] == "Maximum number of entries in the page. Default: `20`."
    # openapi-typescript makes a field with a default required.
    defaults = [name for name, each in openapi["components"]["schemas"].items() if '"default": ' in json.dumps(each)]
    assert defaults == []


def test_requests_forbid_unknown_fields(openapi: dict[str, Any]) -> None:
    for operation in MESSAGE_OPERATIONS:
        assert operation.message is not None
        assert openapi["components"]["schemas"][operation.message.__name__]["additionalProperties"] is False


def test_patterns_are_portable(openapi: dict[str, Any]) -> None:
    r"""``\p`` is unknown to Python, and to JavaScript without the flag ``u``, which in turn forbids ``\"``."""
    patterns = [node["pattern"] for _, node in nodes(openapi) if isinstance(node.get("pattern"), str)]
    assert patterns
    for pattern in patterns:
        re.compile(pattern)
        assert not re.search(r"""\\[pP"'/<>-]""", pattern), pattern


@pytest.mark.parametrize("operation", MESSAGE_OPERATIONS, ids=lambda operation: operation.id)
def test_declared_refusals_are_in_the_error_schemas(openapi: dict[str, Any], operation: Operation) -> None:
    described = openapi["paths"][operation.path][operation.verb]
    statuses = [status for status in described["responses"] if status >= "400"]
    codes = {code for status in statuses for code in error_codes(openapi, described, status)}
    assert operation.message is not None
    assert {refusal.code for refusal in operation.message.refuses} <= codes


def test_error_schemas_are_flat_and_typed(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    errors = [name for name in schemas if name.endswith("Error") and name not in {"Error", "FieldError"}]
    assert len(errors) > len(set(PATHS))
    for name in errors:
        code = schemas[name]["properties"]["code"]
        assert {"type", "description", "required", "properties"} == set(schemas[name]), name
        assert len(code["enum"]) == len(set(code["enum"])) == len(code["x-enum-descriptions"])
        assert {"code", "meta"} <= set(schemas[name]["required"])


def test_refusal_of_the_service_describes_the_code(openapi: dict[str, Any]) -> None:
    send_magic_link = openapi["paths"]["/1/2021-10-06/send_magic_link"]["post"]
    assert error_codes(openapi, send_magic_link, "404") == ["client_not_found"]
    get_user = openapi["paths"]["/1/2021-10-06/get_user"]["post"]
    schema = resolve(openapi, get_user["responses"]["404"]["content"]["application/json"]["schema"])
    assert schema["properties"]["code"]["x-enum-descriptions"] == ["No user has this ID, or the user was erased."]


def test_details_of_refusals_are_described(openapi: dict[str, Any]) -> None:
    described = set(openapi["components"]["schemas"]["ErrorMeta"]["properties"])
    named = {
        name
        for operation in operations()
        for refusal in operation.refusals
        for name in re.findall(r"``meta\.(\w+)``", refusal.__doc__ or "")
    }
    assert named
    assert named <= described


def test_document_has_exactly_the_routes_of_the_gateway(openapi: dict[str, Any]) -> None:
    chosen = settings("gateway", ALL_ROUTES)
    assert isinstance(chosen, GatewaySettings)
    gateway, parts = Gateway(chosen), Mock()
    served = {
        (route.path_regex, verb.lower())
        for route in gateway._routes(parts, parts, parts, parts).routes
        if isinstance(route, Route) and route.path not in UNDESCRIBED
        for verb in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, verb) for path, verbs in openapi["paths"].items() for verb in verbs if path not in PATHS}
    assert not [
        pattern.pattern for pattern, verb in served if not any(v == verb and pattern.match(p) for p, v in described)
    ]
    assert not [path for path, verb in described if not any(v == verb and pattern.match(path) for pattern, v in served)]
