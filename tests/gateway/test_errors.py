from __future__ import annotations

import services.gateway.app  # noqa: F401 -- imports every module of the gateway
from services.gateway import errors
from services.gateway.errors import STATUS
from shared.errors import Kind, Refusal


def subclasses(kind: type[Refusal]) -> set[type[Refusal]]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def test_every_kind_of_refusal_has_a_status() -> None:
    assert set(STATUS) == set(Kind)


def test_all_refusals_of_the_gateway_are_in_one_file() -> None:
    modules = {each.__module__ for each in subclasses(Refusal) if each.__module__.startswith("services.gateway")}
    assert modules == {errors.__name__}
