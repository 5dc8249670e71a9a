"""Conformance: every operation of a running Nest responds as the OpenAPI document says, to valid and invalid bodies."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.embedded import demo
from services.gateway.endpoint import Access
from services.gateway.methods import METHODS
from services.reference.__main__ import OUTPUT
from services.reference.operations import Operation, operations
from shared.mail import unsubscribe_token
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.stack import REDIRECT_URI, Stack

# The services run in this process and draw random numbers, which Hypothesis notices.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisWarning")
ACCESS: Final = {
    "anonymous": {Access.ANYONE},
    "user": {Access.ANYONE, Access.SELF_OR_INTERNAL},
    "operator": set(Access),
}
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS: Final = {operation.id: operation for operation in operations()}
REPEATED: Final = {
    (version, name)
    for version, following in pairwise(METHODS)
    for name, method in METHODS[version].items()
    if METHODS[following].get(name) is method
}
"""RPC methods that the next version has unchanged, by version and name."""
LAST: Final = ("revoke_sessions", "erase_user")
"""Called last, because they end the session of the caller."""
BUSY: Final = {503, 504}
"""Responses of an overloaded machine, after which clients should repeat the request."""
ATTEMPTS: Final = 4
TIMEOUT: Final = 60.0


class Probe:
    """Calls all operations as one caller and collects violations of the document.

    Args:
        nest: the Nest under test.
        caller: key of ``ACCESS``.
        headers: the caller's credentials.
        existing: values of fields that name existing objects.
        examples: number of valid and of invalid bodies per operation.
        thorough: whether methods are called in each of the versions that have them unchanged, with other bodies in each
            run.
    """

    def __init__(
        self,
        nest: Stack,
        caller: str,
        headers: dict[str, str],
        existing: dict[str, str],
        *,
        examples: int,
        thorough: bool,
    ) -> None:
        self._nest = nest
        self._caller = caller
        self._headers = headers
        self._existing = existing
        self._examples = examples
        self._thorough = thorough
        self._calls = 0
        self.statuses: set[int] = set()
        self.violations: list[str] = []

    def run(self) -> None:
        """Call all operations. Blocks, so it needs a thread."""
        schema = schemathesis.openapi.from_dict(json.loads(OUTPUT.read_text("utf-8")))
        found = [operation.ok() for operation in schema.get_all_operations() if isinstance(operation, Ok)]
        by_id = [(operation.definition.raw["operationId"], operation) for operation in found]
        with requests.Session() as session:
            for operation_id, api_operation in sorted(by_id, key=lambda each: each[0] in LAST):
                operation = OPERATIONS.get(operation_id)
                if operation is not None and (operation.version, operation.name) in REPEATED and not self._thorough:
                    continue
                if operation is not None and operation.family == "rpc":
                    denied = operation.access not in ACCESS[self._caller]
                    self._probe(api_operation, session, operation, denied=denied)
                elif self._caller == "anonymous":
                    self._probe(api_operation, session, operation)

    def _probe(
        self, api_operation: Any, session: requests.Session, operation: Operation | None, *, denied: bool = False
    ) -> None:
        # A caller without access is refused whatever the body is.
        for mode in [GenerationMode.POSITIVE] if denied else list(GenerationMode):
            may_be_invalid = denied or mode is GenerationMode.NEGATIVE or has_rules_beyond_schema(operation)
            examples = 1 if denied else self._examples
            found = self._call(api_operation, session, mode, examples=examples, may_be_invalid=may_be_invalid)
            self.violations += [f"{api_operation.label} as {self._caller}, {mode.value}: {each}" for each in found[:1]]

    def _call(
        self,
        api_operation: Any,
        session: requests.Session,
        mode: GenerationMode,
        *,
        examples: int,
        may_be_invalid: bool,
    ) -> list[str]:
        """Violations in the responses to some calls. They are not raised, because Hypothesis would repeat the call."""
        violations: list[str] = []

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=not self._thorough,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=api_operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            self._calls += 1
            if mode is GenerationMode.POSITIVE:
                case.body = self._with_existing(with_integers(case.body))
                case.path_parameters = self._with_existing(case.path_parameters)
            response = self._response(case, session)
            self.statuses.add(response.status_code)
            try:
                case.validate_response(response, checks=CHECKS)
            except (Failure, FailureGroup) as failed:
                violations.append(f"{_message(failed)}\n{case.body!r}\n{response.text}")
            if response.status_code == 422 and not may_be_invalid:
                violations.append(f"{case.body!r} is valid and was refused: {response.text}")

        check()
        return violations

    def _with_existing(self, fields: Any) -> Any:
        """In every other call, the fields with values that name existing objects."""
        if not isinstance(fields, dict) or self._calls % 2:
            return fields
        return {name: self._existing.get(name, value) for name, value in fields.items()}

    def _response(self, case: Any, session: requests.Session) -> Any:
        for _ in range(ATTEMPTS):
            response = case.call(base_url=self._nest.urls[0], session=session, headers=self._headers, timeout=TIMEOUT)
            if response.status_code not in BUSY:
                break
        return response


def has_rules_beyond_schema(operation: Operation | None) -> bool:
    """Whether valid bodies may be refused: for a combination of fields, for the caller, or by a rule of the service."""
    if operation is None or operation.message is None:
        return False
    validators = operation.message.__pydantic_decorators__.model_validators
    return (
        bool(validators)
        or operation.body_optional
        or any(each.code == "validation_failed" for each in operation.message.refuses)
    )


def with_integers(body: Any) -> Any:
    """The body with whole floats as integers: Nest refuses ``1.0``, which JSON Schema accepts as an integer."""
    if isinstance(body, dict):
        return {name: with_integers(value) for name, value in body.items()}
    if isinstance(body, list):
        return [with_integers(value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body


def _message(failed: BaseException) -> str:
    return "\n".join(map(str, failed.exceptions)) if isinstance(failed, FailureGroup) else str(failed)


async def run_probe(nest: Stack, caller: str, *, examples: int, thorough: bool) -> Probe:
    """Probe a running Nest as one caller."""
    tokens = await nest.log_in(f"{caller}.{examples}@example.com")
    headers: dict[str, dict[str, str]] = {
        "anonymous": {},
        "user": {"authorization": f"bearer {tokens['access_token']}"},
        "operator": nest.internal,
    }
    existing = {
        "user_id": tokens["user_id"],
        "client_id": demo.CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "identifier_value": f"{caller}.{examples}@example.com",
        "phone_number": "+41 79 123 45 67",
        "token": unsubscribe_token(Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"])), tokens["user_id"]),
    }
    probe = Probe(nest, caller, headers[caller], existing, examples=examples, thorough=thorough)
    await asyncio.to_thread(probe.run)
    return probe


@pytest.mark.parametrize("caller", ACCESS)
async def test_responses_conform_to_the_document(nest: Stack, caller: str) -> None:
    probe = await run_probe(nest, caller, examples=3, thorough=False)
    assert not probe.violations, "\n\n".join(probe.violations)
    assert {200, 204, 400, 404, 422} <= probe.statuses


@pytest.mark.slow
@pytest.mark.parametrize("caller", ACCESS)
async def test_many_responses_conform_to_the_document(nest: Stack, caller: str) -> None:
    probe = await run_probe(nest, caller, examples=50, thorough=True)
    assert not probe.violations, "\n\n".join(probe.violations)
