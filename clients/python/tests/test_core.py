"""Requests, retries and errors, with time that passes at once."""

from __future__ import annotations

import json
import pickle
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from fake_nest import Answer, FakeNest, refusal
from nest_client import UNSET, Client, Retries, Tokens, core, errors
from nest_client.caller import method_of
from nest_client.core import NoResponse, Pause, Response, Send


def response_of(answer: httpx.Response) -> Response:
    return Response(answer.status_code, dict(answer.headers), answer.content)


def run(answers: list[Answer], *, within: float = 60) -> tuple[Any, list[float], list[Send]]:
    """Call a command with these answers; return the result or error, the pauses, and what was sent."""
    request = core.request_of(method_of("x", command=True), {}, authorization=None)
    steps = core.call(request, Retries(within=within))
    pauses: list[float] = []
    sent: list[Send] = []
    outcome: Any = None
    try:
        while True:
            step = steps.send(outcome)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                outcome = None
            else:
                sent.append(step)
                answer = answers.pop(0)
                outcome = NoResponse(answer) if isinstance(answer, Exception) else response_of(answer)
    except StopIteration as end:
        return end.value, pauses, sent
    except (errors.NestError, errors.ConnectionFailed) as error:
        return error, pauses, sent


OK = httpx.Response(200, json={"done": True})


@pytest.mark.parametrize(
    ("fault", "shortest"),
    [
        (refusal(429, "throttled", retry_after=7), 7),
        (refusal(503, "unavailable", retry_after=5), 5),
        (refusal(504, "reply_timeout"), 0.1),
        (httpx.Response(502, text="<h1>Bad Gateway</h1>"), 0.1),
        (httpx.Response(503, text="busy", headers={"retry-after": "3"}), 3),
        (httpx.ConnectError("refused"), 0.1),
        (httpx.ReadTimeout("slow"), 0.1),
        (httpx.RemoteProtocolError("closed"), 0.1),
    ],
)
def test_faults_are_repeated_with_the_same_key_and_a_pause(fault: Answer, shortest: float) -> None:
    result, pauses, sent = run([fault, OK])

    assert result == {"done": True}
    assert len(pauses) == 1
    assert shortest <= pauses[0] <= shortest + 0.3
    assert len({each.request.idempotency_key for each in sent}) == 1
    assert re.fullmatch(r"[\x21-\x7e]{32,255}", str(sent[0].request.idempotency_key))


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "invalid_email"), (401, "unauthorized"), (409, "token_used"), (500, "unknown"), (504, "query_timeout")],
)
def test_refusals_are_raised_at_once(status: int, code: str) -> None:
    error, pauses, _ = run([refusal(status, code)])

    assert (error.status, error.code, pauses) == (status, code, [])


def test_a_wait_beyond_the_bound_is_raised_at_once() -> None:
    error, pauses, _ = run([refusal(429, "throttled", retry_after=61)])

    assert isinstance(error, errors.Throttled)
    assert (error.retry_after, pauses) == (61, [])


def test_retries_of_zero_seconds_make_one_attempt() -> None:
    error, _, sent = run([httpx.ConnectError("refused")], within=0)

    assert isinstance(error, errors.ConnectionFailed)
    assert error.idempotency_key == sent[0].request.idempotency_key


def test_pauses_grow_and_end() -> None:
    _, pauses, _ = run([httpx.ConnectError("refused")] * 10 + [OK])

    assert pauses[0] <= 0.2 < pauses[3] < pauses[8] <= 5


def test_error_has_the_fields_of_the_response() -> None:
    error = core.error_of(response_of(refusal(401, "unauthorized", reason="token_expired")))

    assert type(error) is errors.Unauthorized
    assert isinstance(error, errors.UnauthorizedError)
    assert (error.code, error.message, error.docs) == ("unauthorized", "Do this.", "/reference#error-unauthorized")
    assert (error.status, error.request_id, error.retry_after) == (401, "r1", None)
    assert [each.code for each in error.reasons] == ["token_expired"]
    assert str(error) == "401 unauthorized (token_expired): Do this."
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert (type(again), again.reasons, str(again)) == (type(error), error.reasons, str(error))


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (refusal(410, "token_expired"), errors.TokenExpired, "token_expired"),
        (refusal(409, "a_code_of_tomorrow"), errors.ConflictError, "a_code_of_tomorrow"),
        (refusal(418, "a_status_of_tomorrow"), errors.ClientError, "a_status_of_tomorrow"),
        (refusal(507, "a_status_of_tomorrow"), errors.ServerError, "a_status_of_tomorrow"),
        (refusal(401, "token_expired"), errors.UnauthorizedError, "token_expired"),
        (httpx.Response(502, text="<html>"), errors.ServerError, "http_502"),
        (httpx.Response(404, json=[1]), errors.NotFoundError, "http_404"),
        (httpx.Response(403, json={"code": "x", "meta": 1, "reasons": [1]}), errors.ForbiddenError, "x"),
    ],
)
def test_unknown_codes_have_the_class_of_their_status(answer: httpx.Response, kind: type, code: str) -> None:
    error = core.error_of(response_of(answer))

    assert (type(error), error.code) == (kind, code)


@pytest.mark.parametrize("seconds", [0, 120])
def test_retry_after_is_a_number(seconds: int) -> None:
    assert core.error_of(Response(429, {"retry-after": str(seconds)}, b"{}")).retry_after == seconds


def test_retry_after_is_a_date() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    error = core.error_of(Response(429, {"retry-after": header}, b"{}"))

    assert error.retry_after is not None
    assert 60 <= error.retry_after <= 90


@pytest.mark.parametrize("header", ["soon", "-1", "Fri, 99 Nov 2026 00:00:00 GMT", ""])
def test_unreadable_retry_after_counts_as_none(header: str) -> None:
    assert core.error_of(Response(429, {"retry-after": header}, b"{}")).retry_after is None


def test_fields_left_out_are_not_sent_and_none_is_null(client: Client, fake: FakeNest) -> None:
    at = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
    client.call("x", {"a": UNSET, "b": None, "c": at, "d": "ü"}, command=False)

    assert json.loads(fake.requests[0].content) == {"b": None, "c": "2026-11-21T06:05:00+00:00", "d": "ü"}
    assert "idempotency-key" not in fake.requests[0].headers


def test_times_without_a_zone_are_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="time zone"):
        client.call("x", {"at": datetime(2026, 11, 21)}, command=False)  # noqa: DTZ001 -- the mistake


def test_credentials_do_not_show() -> None:
    request = core.request_of(method_of("x"), {}, authorization="internal secret-key")

    assert "secret-key" not in repr(request)


@pytest.mark.parametrize("url", ["nest.example.com", "ftp://nest.example.com", "", "https://nest.example.com?x=1"])
def test_addresses_without_scheme_or_host_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address of a Nest"):
        Client(url)


def test_plans_are_fetched_again_only_if_they_have_changed(client: Client, fake: FakeNest) -> None:
    first = client.list_plans()
    first["plans"].append({})  # type: ignore[typeddict-item]

    assert client.list_plans() == {"plans": []}
    assert [each.headers.get("if-none-match") for each in fake.requests] == [None, '"plans-1"']


def test_responses_to_one_caller_are_not_used_for_another_one(client: Client, fake: FakeNest, tokens: Tokens) -> None:
    client.list_plans()
    client.session(tokens).list_plans()

    assert [each.headers.get("if-none-match") for each in fake.requests] == [None, None]


def test_few_responses_are_kept_and_no_long_ones() -> None:
    tags = core.EntityTags(size=2, longest=10)
    requests = [core.request_of(method_of(name, tagged=True), {}, authorization=None) for name in "abc"]
    for request in requests:
        tags.keep(request, Response(200, {"etag": '"1"'}, b"short"))
    tags.keep(requests[2], Response(200, {"etag": '"2"'}, b"rather long"))

    assert [tags.find(each) for each in requests] == [None, ('"1"', b"short"), ('"1"', b"short")]


def test_routes_without_a_version_have_their_parameters_in_the_path(client: Client, fake: FakeNest) -> None:
    client.phone_register(code="12 34", nonce="a/b", first_name="Ada")
    client.accounts_users_islogged(token="t")
    client.accounts_applications_delete(apikey="app", token="owner")

    register, logged, delete = fake.requests
    assert (register.url.raw_path, json.loads(register.content)) == (b"/register/12%2034/a%2Fb", {"first_name": "Ada"})
    assert (logged.method, logged.url.path, logged.content) == ("GET", "/users/islogged/t", b"")
    assert (delete.method, delete.headers["authorization"]) == ("DELETE", "bearer owner")


def test_result_of_a_phone_login_is_a_text(client: Client, fake: FakeNest) -> None:
    fake.faults = [httpx.Response(200, text="5f2b8c1d")]

    assert client.phone_init(phone_number="+41 79 123 45 67") == "5f2b8c1d"
