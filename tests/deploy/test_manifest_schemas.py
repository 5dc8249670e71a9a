"""Rendered objects against the schemas of three versions of Kubernetes, and of the operators' custom resources."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any, Final

import jsonschema_rs
import kubernetes_validate.utils as kubernetes
import pytest

from tests.deploy.environments import ROOT
from tests.deploy.manifests import OVERLAYS, SERVICES, Object, render

VERSIONS: Final = ("1.29", "1.33", "1.37")
"""The oldest version that docs/kubernetes.md names, the newest one and one between."""
DEFINITIONS: Final = {path.stem: json.loads(path.read_text()) for path in (ROOT / "tests/deploy/crds").glob("*.json")}
schema_contents: Final = functools.cache(kubernetes.schema_contents)


@pytest.fixture(autouse=True)
def _each_schema_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "schema_contents", schema_contents)


def closed(schema: Any) -> Any:
    """Return a schema that refuses unknown members, as strict validation of the API server does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: closed(each) for name, each in schema.items()}
    if isinstance(result.get("properties"), dict) and not result.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


@functools.cache
def validator(kind: str) -> Any:
    (version,) = DEFINITIONS[kind]["spec"]["versions"]
    return jsonschema_rs.validator_for(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **closed(version["schema"]["openAPIV3Schema"]),
        }
    )


def problems(each: Object, version: str) -> list[str]:
    """Return what strict validation says of an object."""
    definition = DEFINITIONS.get(each["kind"])
    if definition is None:
        try:
            kubernetes.validate(each, version, strict=True)
        except kubernetes.ValidationError as error:
            return [f"{'.'.join(map(str, error.path))}: {error.message}"]
        return []
    spec = definition["spec"]
    served = f"{spec['group']}/{spec['versions'][0]['name']}"
    wrong = [] if each["apiVersion"] == served else [f"apiVersion: {each['apiVersion']} instead of {served}"]
    return wrong + [f"{error.instance_path}: {error.message}" for error in validator(each["kind"]).iter_errors(each)]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    found = {f"{each['kind']} {each['metadata']['name']}": problems(each, version) for each in render(overlay).all}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_every_kind_of_custom_resource_is_rendered() -> None:
    kinds = {each["kind"] for each in render("everything").all}
    assert set(DEFINITIONS) <= kinds


@pytest.mark.parametrize("kind", ["Deployment", "Job", "NetworkPolicy", *DEFINITIONS])
def test_an_unknown_member_is_found(kind: str) -> None:
    wrong = copy.deepcopy(next(iter(render("everything").objects(kind).values())))
    wrong["spec"]["unknown"] = "member"
    assert problems(wrong, VERSIONS[-1])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_of_objects_are_unique(overlay: str) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in render(overlay).all]
    assert len(names) == len(set(names))
    assert {name for kind, name in names if kind == "Deployment"} == set(SERVICES)
