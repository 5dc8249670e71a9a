"""Does Nest answer as its reference says? Asked of every operation, with bodies that fit and bodies that don't."""

from __future__ import annotations

import asyncio
import json
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
from services.reference import operations as tables
from services.reference.__main__ import WRITTEN
from shared.mail import unsubscribe_token
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.stack import REDIRECT_URI, Stack

# Hypothesis sees that the services, which run beside it in this process, draw random numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisWarning")
ADMITTED: Final = {
    "anonymous": {Access.ANYONE},
    "user": {Access.ANYONE, Access.SELF_OR_INTERNAL},
    "operator": set(Access),
}
CONFORMING: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_TABLES: Final = {operation.id: operation for operation in tables.operations()}
LAST: Final = ("revoke_sessions", "erase_user")
"""After these nobody is who they were."""
BUSY: Final = {503, 504}
"""What a machine that is too slow answers; whoever reads it is to ask again."""
TRIES: Final = 4
PATIENCE: Final = 60.0


class Probe:
    """Calls every operation as somebody, and notes what is not as the reference says.

    Args:
        nest: what is called.
        caller: who calls.
        headers: what they show.
        known: values of fields that name what there is.
        examples: how many bodies each operation gets that fit, and how many that don't.
        same: whether they are the same at every run.
    """

    def __init__(
        self, nest: Stack, caller: str, headers: dict[str, str], known: dict[str, str], *, examples: int, same: bool
    ) -> None:
        self._nest = nest
        self._caller = caller
        self._headers = headers
        self._known = known
        self._examples = examples
        self._same = same
        self._calls = 0
        self.statuses: set[int] = set()
        self.wrong: list[str] = []

    def run(self) -> None:
        """Call all of them; takes a thread of its own."""
        schema = schemathesis.openapi.from_dict(json.loads(WRITTEN.read_text("utf-8")))
        found = [operation.ok() for operation in schema.get_all_operations() if isinstance(operation, Ok)]
        named = [(operation.definition.raw["operationId"], operation) for operation in found]
        with requests.Session() as session:
            for name, operation in sorted(named, key=lambda each: each[0] in LAST):
                of_table = OF_TABLES.get(name)
                if of_table is not None and of_table.family == "rpc":
                    self._ask(operation, session, of_table, refused=of_table.who not in ADMITTED[self._caller])
                elif self._caller == "anonymous":
                    self._ask(operation, session, of_table)

    def _ask(
        self, operation: Any, session: requests.Session, of_table: tables.Operation | None, *, refused: bool = False
    ) -> None:
        # Whoever may not call something is refused whatever they send.
        modes = [GenerationMode.POSITIVE] if refused else list(GenerationMode)
        for mode in modes:
            judged = refused or mode is GenerationMode.NEGATIVE or judged_beyond_schema(of_table)
            wrong = self._examine(operation, session, mode, examples=1 if refused else self._examples, judged=judged)
            self.wrong += [f"{operation.label} as {self._caller}, {mode.value}: {each}" for each in wrong[:1]]

    def _examine(
        self, operation: Any, session: requests.Session, mode: GenerationMode, *, examples: int, judged: bool
    ) -> list[str]:
        """What is wrong with the answers to some calls. Nothing is raised: what a repeat says is another matter."""
        wrong: list[str] = []

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=self._same,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def examined(case: Any) -> None:
            self._calls += 1
            if mode is GenerationMode.POSITIVE:
                case.body = self._real(whole(case.body))
                case.path_parameters = self._real(case.path_parameters)
            response = self._answer(case, session)
            self.statuses.add(response.status_code)
            try:
                case.validate_response(response, checks=CONFORMING)
            except (Failure, FailureGroup) as failed:
                wrong.append(f"{_words(failed)}\n{case.body!r}\n{response.text}")
            if response.status_code == 422 and not judged:
                wrong.append(f"{case.body!r} fits and was refused: {response.text}")

        examined()
        return wrong

    def _real(self, fields: Any) -> Any:
        """The same, at every other call with names of what there is in it."""
        if not isinstance(fields, dict) or self._calls % 2:
            return fields
        return {name: self._known.get(name, value) for name, value in fields.items()}

    def _answer(self, case: Any, session: requests.Session) -> Any:
        def once() -> Any:
            return case.call(base_url=self._nest.urls[0], session=session, headers=self._headers, timeout=PATIENCE)

        answers = (once() for _ in range(TRIES))
        answer = next(answers)
        while answer.status_code in BUSY and (again := next(answers, None)) is not None:
            answer = again
        return answer


def judged_beyond_schema(operation: tables.Operation | None) -> bool:
    """Whether there is more to a body than its schema: fields that exclude each other, or that the service judges."""
    if operation is None or operation.message is None:
        return False
    checked = operation.message.__pydantic_decorators__.model_validators
    return bool(checked) or "validation_failed" in operation.promise.refused


def whole(body: Any) -> Any:
    """The same, numbers without a fraction written without a point."""
    if isinstance(body, dict):
        return {name: whole(value) for name, value in body.items()}
    if isinstance(body, list):
        return [whole(value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body


def _words(failed: BaseException) -> str:
    return "\n".join(map(str, failed.exceptions)) if isinstance(failed, FailureGroup) else str(failed)


async def probed(nest: Stack, caller: str, *, examples: int, same: bool) -> Probe:
    """What was found by somebody who has called everything."""
    tokens = await nest.log_in(f"{caller}.{examples}@example.com")
    shown: dict[str, dict[str, str]] = {
        "anonymous": {},
        "user": {"authorization": f"bearer {tokens['access_token']}"},
        "operator": nest.internal,
    }
    known = {
        "user_id": tokens["user_id"],
        "client_id": demo.CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "identifier_value": f"{caller}.{examples}@example.com",
        "phone_number": "+41 79 123 45 67",
        "token": unsubscribe_token(Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"])), tokens["user_id"]),
    }
    probe = Probe(nest, caller, shown[caller], known, examples=examples, same=same)
    await asyncio.to_thread(probe.run)
    return probe


@pytest.mark.parametrize("caller", ADMITTED)
async def test_every_answer_is_as_the_reference_says(nest: Stack, caller: str) -> None:
    probe = await probed(nest, caller, examples=3, same=True)
    assert not probe.wrong, "\n\n".join(probe.wrong)
    assert {200, 204, 400, 404, 422} <= probe.statuses


@pytest.mark.slow
@pytest.mark.parametrize("caller", ADMITTED)
async def test_every_answer_to_many_calls_is_as_the_reference_says(nest: Stack, caller: str) -> None:
    probe = await probed(nest, caller, examples=50, same=False)
    assert not probe.wrong, "\n\n".join(probe.wrong)
