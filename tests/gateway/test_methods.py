import asyncio
import json
from typing import Any, Final

import pytest

from services.auth.handlers import HANDLERS
from services.gateway.endpoint import Access
from services.gateway.methods import METHODS, PATHS
from shared.audit import action_of
from shared.bus.envelope import address_ordering_key
from shared.messages import Command, Message
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.signing_keys import ListSigningKeys
from shared.messages.auth.users import GetUser
from shared.messages.billing.runs import GetStripeRun, ListStripeRuns
from shared.messages.billing.subscriptions import GetSubscriptionHeartbeat, GetSubscriptionStatus
from shared.messages.mailer.branding import GetClientLooks
from shared.messages.mailer.consents import GetMarketingConsent
from shared.messages.personal_data import GetUserProcess
from shared.sealing import Sealer
from tests.gateway.conftest import GatewayStack
from tests.gateway.fake_services import NO_REPLY, Refused

UNAUDITED: Final[dict[type[Message], str]] = {
    GetClientLooks: "branding is visible to every recipient of the client's mails",
    GetMarketingConsent: "one value for a known user ID; back ends query it before every mail",
    GetStripeRun: "counts without personal data, polled every second during a run",
    GetSubscriptionHeartbeat: "a boolean for a known user ID; back ends query it for every request",
    GetSubscriptionStatus: "a status for a known user ID; back ends query it for every request",
    GetUserProcess: "names of services, polled every second during an export or erasure",
    ListSigningKeys: "public keys",
    ListStripeRuns: "counts without personal data",
}
"""Queries with the internal key that need no audit entry, and the reason."""


def audited(message: type[Message]) -> bool:
    """Whether an audit entry is created for the message, by the bus or by auth's decorated handler."""
    return message.audited or hasattr(HANDLERS.get(message), "__wrapped__")


def test_every_method_has_its_path() -> None:
    assert sum(map(len, METHODS.values())) == len(PATHS)
    for path, method in PATHS.items():
        assert path == f"/1/{method.version}/{method.name}"


def test_every_internal_method_is_audited_or_exempt() -> None:
    internal = {method.message for method in PATHS.values() if method.message and method.access is not Access.ANYONE}
    assert len(internal) > 30
    missing = [message.__name__ for message in internal - UNAUDITED.keys() if not audited(message)]
    assert not missing, f"declare these audited, or give the reason in UNAUDITED: {missing}"
    assert internal >= UNAUDITED.keys()


def test_only_unaudited_queries_are_exempt() -> None:
    assert [message.__name__ for message in UNAUDITED if issubclass(message, Command) or audited(message)] == []


def test_audit_action_is_the_method_name() -> None:
    for method in PATHS.values():
        if method.message is not None and method.message.audited:
            assert action_of(method.message) == method.name


def test_message_is_audited_in_one_of_two_ways() -> None:
    assert (audited(CreateClient), CreateClient.audited) == (True, False)
    assert (audited(GetUser), GetUser.audited) == (True, True)
    twice = [message for message, handler in HANDLERS.items() if message.audited and hasattr(handler, "__wrapped__")]
    assert twice == []


V2 = "/1/2021-10-06"


V1 = "/1/2020-12-14"


LINK = {
    "client_id": "client_1",
    "redirect_uri": "https://app.example.com/callback",
    "state": "s",
    "code_challenge_method": "S256",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "identifier_type": "email",
    "identifier_value": "Jane@Example.com",
}


async def test_view_is_passed_on_byte_for_byte(stack: GatewayStack) -> None:
    body = b'{"id":"user_1",  "created_at":"2026-11-21T06:05:00.000Z","identifiers":[]}'
    stack.services.replies["auth.get-user"] = lambda _: body
    response = await stack.http.post(f"{V2}/get_user", json={"user_id": "user_1"}, headers=stack.bearer())
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["content-type"] == "application/json"
    envelope = stack.services.received[0]
    assert json.loads(envelope.body) == {"user_id": "user_1"}
    assert (envelope.caller.kind, envelope.caller.user_id, envelope.caller.client_ip) == ("user", "user_1", "127.0.0.1")
    assert envelope.deadline == envelope.time + 10_000


async def test_known_entity_tag_gets_304_until_the_content_changes(stack: GatewayStack) -> None:
    body = b"[]"
    stack.services.replies["news.list-news-items"] = lambda _: body
    request = {"client_id": "client_1"}
    first = await stack.http.post(f"{V2}/list_news_items", json=request)
    tag = first.headers["etag"]
    assert (first.status_code, first.content, first.headers["cache-control"]) == (200, b"[]", "private, no-cache")
    for known in (tag, f"W/{tag}", f'"another", {tag}'):
        again = await stack.http.post(f"{V2}/list_news_items", json=request, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
        assert "content-type" not in again.headers
    body = b'[{"id":"newsitem_1"}]'
    changed = await stack.http.post(f"{V2}/list_news_items", json=request, headers={"if-none-match": tag})
    assert (changed.status_code, changed.content) == (200, body)
    assert changed.headers["etag"] != tag


async def test_refusals_and_other_methods_have_no_entity_tag(stack: GatewayStack) -> None:
    stack.services.replies["news.list-news-items"] = lambda _: Refused("unavailable", "unavailable")
    refused = await stack.http.post(f"{V2}/list_news_items", json={"client_id": "client_1"})
    assert (refused.status_code, "etag" in refused.headers) == (503, False)
    other = await stack.http.post(f"{V2}/send_magic_link", json=LINK, headers={"if-none-match": "*"})
    assert (other.status_code, "etag" in other.headers) == (204, False)


async def test_method_without_a_result_gives_204(stack: GatewayStack) -> None:
    response = await stack.http.post(f"{V2}/send_magic_link", json=LINK)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


@pytest.mark.parametrize("version", METHODS)
async def test_spellings_of_one_address_share_a_hashed_ordering_key(stack: GatewayStack, version: str) -> None:
    for address in ("jane@example.com", " JANE@example.com"):
        await stack.http.post(f"/1/{version}/send_magic_link", json={**LINK, "identifier_value": address})
    keys = {envelope.key for envelope in stack.services.received}
    (key,) = keys
    assert key == address_ordering_key("jane@example.com", stack.services.sealer)
    assert key != address_ordering_key("jane@example.com", Sealer({"k1": bytes([1]) * 32})), (
        "without the sealing key, addresses could be tried"
    )


async def test_secrets_leave_the_gateway_sealed(stack: GatewayStack) -> None:
    redemption = {"client_id": "c", "grant_type": "authorization_code", "code": "authzcode_1.secret-half"}
    response = await stack.http.post(f"{V2}/authenticate_user", json=redemption)
    assert response.status_code == 204
    envelope = stack.services.received[0]
    assert b"secret-half" not in envelope.body
    assert "secret" not in envelope.key
    assert stack.services.sealer.unseal("auth", json.loads(envelope.body)["code"]) == b"authzcode_1.secret-half"


async def test_sealed_reply_is_unsealed_for_the_client(stack: GatewayStack) -> None:
    view = b'{"access_token": "a.b.c"}'
    stack.services.replies["auth.authenticate-user"] = lambda _: stack.services.sealer.seal("gateway", view).encode()
    response = await stack.http.post(f"{V2}/authenticate_user", json={"client_id": "c", "grant_type": "g"})
    assert (response.status_code, response.content) == (200, view)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid", 400),
        ("unauthenticated", 401),
        ("payment_required", 402),
        ("forbidden", 403),
        ("not_found", 404),
        ("conflict", 409),
        ("gone", 410),
        ("validation_failed", 422),
        ("throttled", 429),
        ("bug", 500),
        ("unavailable", 503),
        ("timed_out", 504),
    ],
)
async def test_refusal_has_the_status_of_its_kind(stack: GatewayStack, kind: str, status: int) -> None:
    stack.services.replies["auth.send-magic-link"] = lambda _: Refused(kind, "some_code", fact=1)
    response = await stack.http.post(f"{V2}/send_magic_link", json=LINK, headers={"x-request-id": "mine"})
    assert response.status_code == status
    assert response.json() == {"code": "some_code", "meta": {"fact": 1, "request_id": "mine"}}
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_rate_limit_response_has_retry_after(stack: GatewayStack) -> None:
    stack.services.replies["auth.send-magic-link"] = lambda _: Refused("throttled", "too_many", retry_after=42)
    response = await stack.http.post(f"{V2}/send_magic_link", json=LINK)
    assert response.headers["retry-after"] == "42"


async def test_refusal_of_an_unknown_kind_is_a_500(stack: GatewayStack) -> None:
    stack.services.replies["auth.send-magic-link"] = lambda _: Refused("from_the_future", "secret_detail")
    response = await stack.http.post(f"{V2}/send_magic_link", json=LINK)
    assert response.status_code == 500
    assert response.json()["code"] == "unknown"
    assert "secret_detail" not in response.text


@pytest.mark.parametrize(
    ("path", "status", "code", "meta"),
    [
        ("/2/2021-10-06/get_user", 404, "unknown_version", {"supported_version": "1"}),
        ("/v1/2021-10-06/get_user", 404, "unknown_version", {"supported_version": "1"}),
        ("/2", 404, "unknown_version", {"supported_version": "1"}),
        ("/1/2021-10-07/get_user", 404, "version_not_supported", {"versions": ["2020-12-14", "2021-10-06"]}),
        ("/1/latest/get_user", 404, "version_not_supported", {"versions": ["2020-12-14", "2021-10-06"]}),
        ("/1/2020-12-14/get_user", 404, "not_found", {}),
        ("/1/2021-10-06/enrol_alpha_user", 404, "not_found", {}),
        ("/1/2021-10-06/get_user/", 404, "not_found", {}),
        ("/1/2021-10-06/GET_USER", 404, "not_found", {}),
        ("/1/2021-10-06", 404, "not_found", {}),
        ("/1", 404, "not_found", {}),
        ("/nothing/here", 404, "not_found", {}),
        ("//", 404, "not_found", {}),
    ],
)
async def test_unknown_path_is_explained(
    stack: GatewayStack, path: str, status: int, code: str, meta: dict[str, Any]
) -> None:
    response = await stack.http.post(f"http://127.0.0.1:{stack.gateway.port}{path}", json={})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert {name: value for name, value in response.json()["meta"].items() if name != "request_id"} == meta


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [f"{V2}/get_user", "/1/webhook/stripe"])
async def test_other_http_methods_are_refused(stack: GatewayStack, verb: str, path: str) -> None:
    response = await stack.http.request(verb, path)
    assert response.status_code == 405
    assert "POST" in response.headers["allow"]
    if verb != "HEAD":
        assert response.json()["code"] == "method_not_supported"


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense"])
async def test_deprecated_method_always_gives_410(stack: GatewayStack, content: bytes) -> None:
    response = await stack.http.post(f"{V1}/enrol_alpha_user", content=content, headers={"authorization": "nonsense"})
    assert (response.status_code, response.json()["code"]) == (410, "deprecated")


async def test_missing_body_is_refused(stack: GatewayStack) -> None:
    response = await stack.http.post(f"{V2}/send_magic_link")
    assert (response.status_code, response.json()["code"]) == (400, "body_missing")


async def test_validation_errors_name_paths_and_never_values(stack: GatewayStack) -> None:
    body = {**LINK, "state": 7654321, "surprise": "hunter2", "device": {"platform": "amiga-9000", "extra": "hunter2"}}
    del body["client_id"]
    response = await stack.http.post(f"{V2}/send_magic_link", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    errors = response.json()["meta"]["errors"]
    assert {error["path"] for error in errors} == {"client_id", "state", "surprise", "device.platform", "device.extra"}
    assert all(error.keys() == {"path", "message"} for error in errors)
    assert not any(value in response.text for value in ("7654321", "hunter2", "amiga"))
    assert stack.services.received == []


@pytest.mark.parametrize("name", [name for name in METHODS["2021-10-06"] if name.startswith(("get", "set", "send"))])
async def test_client_cannot_set_the_ordering_key(stack: GatewayStack, name: str) -> None:
    response = await stack.http.post(f"{V2}/{name}", json={"key": "mine"}, headers=stack.internal)
    assert response.status_code == 422
    assert "key" in {error["path"] for error in response.json()["meta"]["errors"]}


async def test_validation_errors_are_bounded(stack: GatewayStack) -> None:
    body = {f"field_{number}" * 50: number for number in range(100)}
    response = await stack.http.post(f"{V2}/list_news_items", json=body)
    assert response.status_code == 422
    assert len(response.json()["meta"]["errors"]) == 20
    assert len(response.content) < 8_000


@pytest.mark.parametrize("operator", [{"$gt": ""}, {"$ne": None}, {"$where": "1"}, ["a"], None, 1, True])
async def test_query_operator_in_place_of_a_string_is_refused(stack: GatewayStack, operator: Any) -> None:
    for name, body in {
        "get_user": {"user_id": operator},
        "list_news_items": {"client_id": operator},
        "authenticate_user": {"client_id": "c", "grant_type": operator},
        "send_magic_link": {**LINK, "identifier_value": operator},
    }.items():
        response = await stack.http.post(f"{V2}/{name}", json=body, headers=stack.internal)
        assert response.status_code == 422, name
    assert stack.services.received == []


async def test_invalid_request_id_is_replaced(stack: GatewayStack) -> None:
    valid = await stack.http.post(f"{V2}/get_user", headers={"x-request-id": "abc-DEF_1.2:3"})
    assert valid.headers["x-request-id"] == valid.json()["meta"]["request_id"] == "abc-DEF_1.2:3"
    for invalid in ("", "a" * 129, "a b", "é".encode("latin-1"), '"><script>'):
        replaced = await stack.http.post(f"{V2}/get_user", headers={"x-request-id": invalid})
        assert len(replaced.headers["x-request-id"]) == 32
        assert replaced.headers["x-request-id"] == replaced.json()["meta"]["request_id"]


async def test_invalid_traceparent_is_replaced(stack: GatewayStack) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    bad = ("00-" + "0" * 32 + "-b7ad6b7169203331-01", good + "-extra", good.upper(), "x" * 8000)
    for traceparent in (good, *bad):
        await stack.http.post(f"{V2}/list_news_items", json={"client_id": "c"}, headers={"traceparent": traceparent})
    traces = [envelope.trace for envelope in stack.services.received]
    assert traces[0] == good
    assert not set(traces[1:]) & set(bad)
    assert all(len(trace) == 55 for trace in traces)


async def test_request_headers_never_become_message_headers(stack: GatewayStack) -> None:
    spoofed = {
        "reply-to": "7",
        "reply_to": "7",
        "nest-id": "x",
        "id": "x",
        "type": "x",
        "x-user-id": "x",
        "caller": "x",
    }
    await stack.http.post(f"{V2}/list_news_items", json={"client_id": "c"}, headers=spoofed)
    record = stack.services.records[0]
    assert {name for name, _ in record.headers} == {
        *("type", "id", "time", "caller", "traceparent", "deadline", "reply-to", "reply-id"),
    }
    assert dict(record.headers)["type"] == b"news.list-news-items"
    assert dict(record.headers)["caller"] == b'{"kind":"anonymous","client_ip":"127.0.0.1"}'


class TestIdempotencyKeys:
    async def test_repeat_has_the_same_message_id_and_fingerprint(self, stack: GatewayStack) -> None:
        for body in (LINK, dict(reversed(LINK.items()))):
            await stack.http.post(f"{V2}/send_magic_link", json=body, headers={"idempotency-key": "k"})
        first, second = stack.services.received
        assert first.id == second.id
        assert first.fingerprint == second.fingerprint != ""
        assert first.reply_id != second.reply_id

    async def test_other_body_has_the_same_message_id_and_another_fingerprint(self, stack: GatewayStack) -> None:
        for state in ("one", "two"):
            await stack.http.post(
                f"{V2}/send_magic_link", json={**LINK, "state": state}, headers={"idempotency-key": "k"}
            )
        first, second = stack.services.received
        assert first.id == second.id
        assert first.fingerprint != second.fingerprint

    async def test_key_belongs_to_caller_method_and_version(self, stack: GatewayStack) -> None:
        consent = {"user_id": "user_1", "level": "none"}
        key = {"idempotency-key": "k"}
        for version in METHODS:
            await stack.http.post(f"/1/{version}/set_marketing_consent", json=consent, headers=key | stack.bearer())
            await stack.http.post(f"/1/{version}/set_marketing_consent", json=consent, headers=key | stack.internal)
            await stack.http.post(f"/1/{version}/send_magic_link", json=LINK, headers=key)
        assert len({envelope.id for envelope in stack.services.received}) == 6

    async def test_calls_without_a_key_have_distinct_message_ids(self, stack: GatewayStack) -> None:
        for _ in range(2):
            await stack.http.post(f"{V2}/send_magic_link", json=LINK)
        first, second = stack.services.received
        assert first.id != second.id
        assert first.fingerprint == ""

    async def test_replayed_reply_is_marked_if_the_client_sent_a_key(self, stack: GatewayStack) -> None:
        stack.services.replies["auth.send-magic-link"] = lambda _: NO_REPLY

        async def replay(envelope: Any) -> None:
            await stack.services.reply(envelope, None, replayed=True)

        stack.services.before_reply = replay
        with_key = await stack.http.post(f"{V2}/send_magic_link", json=LINK, headers={"idempotency-key": "k"})
        without = await stack.http.post(f"{V2}/send_magic_link", json=LINK)
        assert with_key.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in without.headers

    @pytest.mark.parametrize("key", ["", "k" * 256, "ключ".encode()])
    async def test_malformed_key_is_refused(self, stack: GatewayStack, key: str | bytes) -> None:
        response = await stack.http.post(f"{V2}/send_magic_link", json=LINK, headers={"idempotency-key": key})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_idempotency_key")
        assert stack.services.received == []

    async def test_100_concurrent_calls_with_one_key_all_get_a_response(self, stack: GatewayStack) -> None:
        stack.services.replies["auth.create-client"] = lambda envelope: {"id": envelope.id}
        body = {"name": "App", "redirect_uris": ["https://app.example.com/"]}
        headers = {"idempotency-key": "k"} | stack.internal
        responses = await asyncio.gather(
            *(stack.http.post(f"{V2}/create_client", json=body, headers=headers) for _ in range(100))
        )
        assert {response.status_code for response in responses} == {200}
        assert len({response.content for response in responses}) == 1

    async def test_concurrent_calls_with_one_key_get_the_reply_to_their_own_body(self, stack: GatewayStack) -> None:
        stack.services.replies["auth.create-client"] = lambda envelope: json.loads(envelope.body)
        headers = {"idempotency-key": "k"} | stack.internal
        bodies = [{"name": f"App {number}", "redirect_uris": ["https://app.example.com/"]} for number in range(20)]
        responses = await asyncio.gather(
            *(stack.http.post(f"{V2}/create_client", json=body, headers=headers) for body in bodies)
        )
        assert [response.json().get("name") for response in responses] == [body["name"] for body in bodies]


class TestHeartbeat:
    async def test_user_may_omit_the_body(self, stack: GatewayStack) -> None:
        response = await stack.http.post(f"{V1}/get_subscription_status", headers=stack.bearer("user_7"))
        assert response.status_code == 204
        assert json.loads(stack.services.received[0].body) == {"user_id": "user_7"}
        assert stack.services.received[0].wire == "billing.get-subscription-heartbeat"

    async def test_other_callers_and_versions_need_the_body(self, stack: GatewayStack) -> None:
        response = await stack.http.post(f"{V1}/get_subscription_status", headers=stack.internal)
        assert (response.status_code, response.json()["code"]) == (400, "body_missing")
        later = await stack.http.post(f"{V2}/get_subscription_status", headers=stack.bearer())
        assert (later.status_code, later.json()["code"]) == (400, "body_missing")


class TestAccess:
    @pytest.mark.parametrize("version", METHODS)
    async def test_access_matches_the_table_for_every_method_and_role(self, stack: GatewayStack, version: str) -> None:
        roles = {"anonymous": {}, "self": stack.bearer("user_1"), "other": stack.bearer("user_2")}
        roles["internal"] = stack.internal
        for name, method in METHODS[version].items():
            if method.message is None:
                continue
            admitted = set()
            for role, headers in roles.items():
                response = await stack.http.post(f"/1/{version}/{name}", json=_body(name), headers=headers)
                assert response.status_code == 204 or response.json()["code"] == "access_denied", (name, role)
                admitted |= {role} if response.status_code == 204 else set()
            assert (
                admitted
                == {
                    "anyone": set(roles),
                    "self or internal": {"self", "internal"},
                    "internal": {"internal"},
                }[method.access.value]
            ), name

    async def test_invalid_token_is_refused_even_for_public_methods(self, stack: GatewayStack) -> None:
        response = await stack.http.post(f"{V2}/send_magic_link", json=LINK, headers={"authorization": "bearer x"})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "bearer"


def _body(name: str) -> dict[str, Any]:
    banner = {"emoji": "x", "title": "t", "body": "b"}
    bodies: dict[str, dict[str, Any]] = {
        "send_magic_link": LINK,
        "create_trial_and_magic_link": {**LINK, "device": {"fingerprint": "f"}},
        "authenticate_user": {"client_id": "c", "grant_type": "refresh_token", "refresh_token": "01.a.b"},
        "list_news_items": {"client_id": "c"},
        "set_marketing_consent": {"user_id": "user_1", "level": "general"},
        "create_client": {"name": "App", "redirect_uris": ["https://app.example.com/"]},
        "update_client": {"id": "c"},
        "list_clients": {},
        "find_user": {"identifier_type": "email", "identifier_value": "ada@example.com"},
        "get_user_process": {"process_id": "userproc_1"},
        "get_user_export": {"process_id": "userproc_1"},
        "create_news_item": {"primary": {"payload": banner}},
        "update_news_item": {"id": "newsitem_1", "primary": {"payload": banner}},
        "remove_news_item": {"id": "newsitem_1"},
        "list_all_news_items": {},
        "list_signing_keys": {},
        "rotate_signing_keys": {},
        "list_audit_entries": {},
        "list_dead_letters": {},
        "list_deliveries": {},
        "list_suppressions": {},
        "lift_suppression": {"recipient": "ada@example.com"},
        "replay_dead_letters": {"filter": {}},
        "dismiss_news_item": {"user_id": "user_1", "news_item_id": "newsitem_1"},
        "reconcile_subscriptions": {},
        "sweep_stripe_events": {},
        "replay_stripe_events": {"event_ids": ["evt_1"]},
        "import_stripe_account": {},
        "list_stripe_runs": {},
        "get_stripe_run": {"run_id": "striperun_1"},
        "list_stripe_differences": {"run_id": "striperun_1"},
        "stop_stripe_run": {"run_id": "striperun_1"},
        "resume_stripe_run": {"run_id": "striperun_1"},
        "set_client_looks": {"client_id": "client_1"},
        "get_client_looks": {"client_id": "client_1"},
    }
    return bodies.get(name, {"user_id": "user_1"})
