"""One RPC call over HTTP, through the real Kafka and back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.gateway.methods import METHODS
from shared.bus.envelope import address_ordering_key
from shared.sealing import Sealer
from tests.gateway.conftest import World
from tests.gateway.fake_services import NO_REPLY, Refused

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


async def test_a_view_is_answered_as_the_service_wrote_it(world: World) -> None:
    body = b'{"id":"user_1",  "created_at":"2026-11-21T06:05:00.000Z","identifiers":[]}'
    world.services.replies["auth.get-user"] = lambda _: body
    answer = await world.http.post(f"{V2}/get_user", json={"user_id": "user_1"}, headers=world.bearer())
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    heard = world.services.received[0]
    assert json.loads(heard.body) == {"user_id": "user_1"}
    assert (heard.caller.kind, heard.caller.user_id, heard.caller.client_ip) == ("user", "user_1", "127.0.0.1")
    assert heard.deadline == heard.time + 3000


async def test_a_tagged_answer_is_sent_again_only_when_it_has_changed(world: World) -> None:
    body = b"[]"
    world.services.replies["news.list-news-items"] = lambda _: body
    ask = {"client_id": "client_1"}
    first = await world.http.post(f"{V2}/list_news_items", json=ask)
    tag = first.headers["etag"]
    assert (first.status_code, first.content, first.headers["cache-control"]) == (200, b"[]", "private, no-cache")
    for known in (tag, f"W/{tag}", f'"another", {tag}'):
        again = await world.http.post(f"{V2}/list_news_items", json=ask, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
        assert "content-type" not in again.headers
    body = b'[{"id":"newsitem_1"}]'
    changed = await world.http.post(f"{V2}/list_news_items", json=ask, headers={"if-none-match": tag})
    assert (changed.status_code, changed.content) == (200, body)
    assert changed.headers["etag"] != tag


async def test_a_refusal_and_an_answer_that_is_not_tagged_have_no_tag(world: World) -> None:
    world.services.replies["news.list-news-items"] = lambda _: Refused("unavailable", "unavailable")
    refused = await world.http.post(f"{V2}/list_news_items", json={"client_id": "client_1"})
    assert (refused.status_code, "etag" in refused.headers) == (503, False)
    other = await world.http.post(f"{V2}/send_magic_link", json=LINK, headers={"if-none-match": "*"})
    assert (other.status_code, "etag" in other.headers) == (204, False)


async def test_a_method_without_a_result_is_answered_204(world: World) -> None:
    answer = await world.http.post(f"{V2}/send_magic_link", json=LINK)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("version", METHODS)
async def test_the_same_address_has_the_same_key_however_it_is_written(world: World, version: str) -> None:
    for address in ("jane@example.com", " JANE@example.com"):
        await world.http.post(f"/1/{version}/send_magic_link", json={**LINK, "identifier_value": address})
    keys = {envelope.key for envelope in world.services.received}
    (key,) = keys
    assert key == address_ordering_key("jane@example.com", world.services.sealer)
    assert key != address_ordering_key("jane@example.com", Sealer({"k1": bytes([1]) * 32})), (
        "it is found by trying addresses"
    )


async def test_secrets_leave_the_gateway_sealed(world: World) -> None:
    redemption = {"client_id": "c", "grant_type": "authorization_code", "code": "authzcode_1.secret-half"}
    answer = await world.http.post(f"{V2}/authenticate_user", json=redemption)
    assert answer.status_code == 204
    heard = world.services.received[0]
    assert b"secret-half" not in heard.body
    assert "secret" not in heard.key
    assert world.services.sealer.unseal("auth", json.loads(heard.body)["code"]) == b"authzcode_1.secret-half"


async def test_a_sealed_reply_is_opened_for_the_caller(world: World) -> None:
    view = b'{"access_token": "a.b.c"}'
    world.services.replies["auth.authenticate-user"] = lambda _: world.services.sealer.seal("gateway", view).encode()
    answer = await world.http.post(f"{V2}/authenticate_user", json={"client_id": "c", "grant_type": "g"})
    assert (answer.status_code, answer.content) == (200, view)


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
async def test_a_refusal_gets_the_status_of_its_kind(world: World, kind: str, status: int) -> None:
    world.services.replies["auth.send-magic-link"] = lambda _: Refused(kind, "some_code", fact=1)
    answer = await world.http.post(f"{V2}/send_magic_link", json=LINK, headers={"x-request-id": "mine"})
    assert answer.status_code == status
    assert answer.json() == {"code": "some_code", "meta": {"fact": 1, "request_id": "mine"}}
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_a_throttled_caller_is_told_when_to_come_back(world: World) -> None:
    world.services.replies["auth.send-magic-link"] = lambda _: Refused("throttled", "too_many", retry_after=42)
    answer = await world.http.post(f"{V2}/send_magic_link", json=LINK)
    assert answer.headers["retry-after"] == "42"


async def test_a_refusal_of_a_kind_unknown_here_is_a_bug(world: World) -> None:
    world.services.replies["auth.send-magic-link"] = lambda _: Refused("from_the_future", "secret_detail")
    answer = await world.http.post(f"{V2}/send_magic_link", json=LINK)
    assert answer.status_code == 500
    assert answer.json()["code"] == "unknown"
    assert "secret_detail" not in answer.text


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
async def test_a_path_that_leads_nowhere_says_why(
    world: World, path: str, status: int, code: str, meta: dict[str, Any]
) -> None:
    answer = await world.http.post(f"http://127.0.0.1:{world.gateway.port}{path}", json={})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert {name: value for name, value in answer.json()["meta"].items() if name != "request_id"} == meta


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [f"{V2}/get_user", "/1/webhook/stripe"])
async def test_another_verb_is_refused(world: World, verb: str, path: str) -> None:
    answer = await world.http.request(verb, path)
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    if verb != "HEAD":
        assert answer.json()["code"] == "method_not_supported"


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense"])
async def test_the_deprecated_method_is_always_gone(world: World, content: bytes) -> None:
    answer = await world.http.post(f"{V1}/enrol_alpha_user", content=content, headers={"authorization": "nonsense"})
    assert (answer.status_code, answer.json()["code"]) == (410, "deprecated")


async def test_a_body_that_is_missing_is_said_to_be(world: World) -> None:
    answer = await world.http.post(f"{V2}/send_magic_link")
    assert (answer.status_code, answer.json()["code"]) == (400, "body_missing")


async def test_a_wrong_shape_names_its_places_and_never_a_value(world: World) -> None:
    sent = {**LINK, "state": 7654321, "surprise": "hunter2", "device": {"platform": "amiga-9000", "extra": "hunter2"}}
    del sent["client_id"]
    answer = await world.http.post(f"{V2}/send_magic_link", json=sent)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    errors = answer.json()["meta"]["errors"]
    assert {error["path"] for error in errors} == {"client_id", "state", "surprise", "device.platform", "device.extra"}
    assert all(error.keys() == {"path", "message"} for error in errors)
    assert not any(value in answer.text for value in ("7654321", "hunter2", "amiga"))
    assert world.services.received == []


@pytest.mark.parametrize("name", [name for name in METHODS["2021-10-06"] if name.startswith(("get", "set", "send"))])
async def test_the_key_of_a_message_is_not_the_callers_to_set(world: World, name: str) -> None:
    answer = await world.http.post(f"{V2}/{name}", json={"key": "mine"}, headers=world.internal)
    assert answer.status_code == 422
    assert "key" in {error["path"] for error in answer.json()["meta"]["errors"]}


async def test_the_list_of_mistakes_is_bounded(world: World) -> None:
    sent = {f"field_{number}" * 50: number for number in range(100)}
    answer = await world.http.post(f"{V2}/list_news_items", json=sent)
    assert answer.status_code == 422
    assert len(answer.json()["meta"]["errors"]) == 20
    assert len(answer.content) < 8_000


@pytest.mark.parametrize("operator", [{"$gt": ""}, {"$ne": None}, {"$where": "1"}, ["a"], None, 1, True])
async def test_a_query_operator_in_place_of_a_text_is_refused(world: World, operator: Any) -> None:
    for name, sent in {
        "get_user": {"user_id": operator},
        "list_news_items": {"client_id": operator},
        "authenticate_user": {"client_id": "c", "grant_type": operator},
        "send_magic_link": {**LINK, "identifier_value": operator},
    }.items():
        answer = await world.http.post(f"{V2}/{name}", json=sent, headers=world.internal)
        assert answer.status_code == 422, name
    assert world.services.received == []


async def test_a_sane_request_id_is_kept_and_another_is_replaced(world: World) -> None:
    kept = await world.http.post(f"{V2}/get_user", headers={"x-request-id": "abc-DEF_1.2:3"})
    assert kept.headers["x-request-id"] == kept.json()["meta"]["request_id"] == "abc-DEF_1.2:3"
    for insane in ("", "a" * 129, "a b", "é".encode("latin-1"), '"><script>'):
        made = await world.http.post(f"{V2}/get_user", headers={"x-request-id": insane})
        assert len(made.headers["x-request-id"]) == 32
        assert made.headers["x-request-id"] == made.json()["meta"]["request_id"]


async def test_a_trace_that_is_well_formed_is_carried_on_and_another_is_replaced(world: World) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    bad = ("00-" + "0" * 32 + "-b7ad6b7169203331-01", good + "-extra", good.upper(), "x" * 8000)
    for given in (good, *bad):
        await world.http.post(f"{V2}/list_news_items", json={"client_id": "c"}, headers={"traceparent": given})
    traces = [envelope.trace for envelope in world.services.received]
    assert traces[0] == good
    assert not set(traces[1:]) & set(bad)
    assert all(len(trace) == 55 for trace in traces)


async def test_headers_of_the_client_never_become_headers_of_the_message(world: World) -> None:
    spoofed = {
        "reply-to": "7",
        "reply_to": "7",
        "nest-id": "x",
        "id": "x",
        "type": "x",
        "x-user-id": "x",
        "caller": "x",
    }
    await world.http.post(f"{V2}/list_news_items", json={"client_id": "c"}, headers=spoofed)
    record = world.services.records[0]
    assert {name for name, _ in record.headers} == {
        *("type", "id", "time", "caller", "traceparent", "deadline", "reply-to", "reply-id"),
    }
    assert dict(record.headers)["type"] == b"news.list-news-items"
    assert dict(record.headers)["caller"] == b'{"kind":"anonymous","client_ip":"127.0.0.1"}'


class TestIdempotencyKeys:
    async def test_a_repeat_has_the_id_and_the_fingerprint_of_the_first(self, world: World) -> None:
        for sent in (LINK, dict(reversed(LINK.items()))):
            await world.http.post(f"{V2}/send_magic_link", json=sent, headers={"idempotency-key": "k"})
        first, second = world.services.received
        assert first.id == second.id
        assert first.fingerprint == second.fingerprint != ""
        assert first.reply_id != second.reply_id

    async def test_another_body_has_the_id_and_another_fingerprint(self, world: World) -> None:
        for state in ("one", "two"):
            await world.http.post(
                f"{V2}/send_magic_link", json={**LINK, "state": state}, headers={"idempotency-key": "k"}
            )
        first, second = world.services.received
        assert first.id == second.id
        assert first.fingerprint != second.fingerprint

    async def test_keys_of_two_callers_methods_or_versions_have_nothing_to_do_with_each_other(
        self, world: World
    ) -> None:
        consent = {"user_id": "user_1", "level": "none"}
        key = {"idempotency-key": "k"}
        for version in METHODS:
            await world.http.post(f"/1/{version}/set_marketing_consent", json=consent, headers=key | world.bearer())
            await world.http.post(f"/1/{version}/set_marketing_consent", json=consent, headers=key | world.internal)
            await world.http.post(f"/1/{version}/send_magic_link", json=LINK, headers=key)
        assert len({envelope.id for envelope in world.services.received}) == 6

    async def test_without_a_key_every_call_is_its_own(self, world: World) -> None:
        for _ in range(2):
            await world.http.post(f"{V2}/send_magic_link", json=LINK)
        first, second = world.services.received
        assert first.id != second.id
        assert first.fingerprint == ""

    async def test_a_replayed_answer_says_so_to_whoever_sent_a_key(self, world: World) -> None:
        world.services.replies["auth.send-magic-link"] = lambda _: NO_REPLY

        async def replay(envelope: Any) -> None:
            await world.services.reply(envelope, None, replayed=True)

        world.services.before_reply = replay
        with_key = await world.http.post(f"{V2}/send_magic_link", json=LINK, headers={"idempotency-key": "k"})
        without = await world.http.post(f"{V2}/send_magic_link", json=LINK)
        assert with_key.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in without.headers

    @pytest.mark.parametrize("key", ["", "k" * 256, "ключ".encode()])
    async def test_a_key_that_is_none_is_refused(self, world: World, key: str | bytes) -> None:
        answer = await world.http.post(f"{V2}/send_magic_link", json=LINK, headers={"idempotency-key": key})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
        assert world.services.received == []

    async def test_a_hundred_parallel_calls_with_one_key_are_all_answered(self, world: World) -> None:
        world.services.replies["auth.create-client"] = lambda envelope: {"id": envelope.id}
        sent = {"name": "App", "redirect_uris": ["https://app.example.com/"]}
        headers = {"idempotency-key": "k"} | world.internal
        answers = await asyncio.gather(
            *(world.http.post(f"{V2}/create_client", json=sent, headers=headers) for _ in range(100))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1

    async def test_of_parallel_calls_with_one_key_each_gets_the_answer_to_its_own_body(self, world: World) -> None:
        world.services.replies["auth.create-client"] = lambda envelope: json.loads(envelope.body)
        headers = {"idempotency-key": "k"} | world.internal
        bodies = [{"name": f"App {number}", "redirect_uris": ["https://app.example.com/"]} for number in range(20)]
        answers = await asyncio.gather(
            *(world.http.post(f"{V2}/create_client", json=body, headers=headers) for body in bodies)
        )
        assert [answer.json().get("name") for answer in answers] == [body["name"] for body in bodies]


class TestHeartbeat:
    async def test_a_user_may_leave_the_body_out(self, world: World) -> None:
        answer = await world.http.post(f"{V1}/get_subscription_status", headers=world.bearer("user_7"))
        assert answer.status_code == 204
        assert json.loads(world.services.received[0].body) == {"user_id": "user_7"}
        assert world.services.received[0].wire == "billing.get-subscription-heartbeat"

    async def test_nobody_else_may(self, world: World) -> None:
        answer = await world.http.post(f"{V1}/get_subscription_status", headers=world.internal)
        assert (answer.status_code, answer.json()["code"]) == (400, "body_missing")
        later = await world.http.post(f"{V2}/get_subscription_status", headers=world.bearer())
        assert (later.status_code, later.json()["code"]) == (400, "body_missing")


class TestWhoMayCall:
    @pytest.mark.parametrize("version", METHODS)
    async def test_everybody_may_or_may_not_as_the_table_says(self, world: World, version: str) -> None:
        """Every method, every role, and another user's id: the whole matrix."""
        roles = {"anonymous": {}, "self": world.bearer("user_1"), "other": world.bearer("user_2")}
        roles["internal"] = world.internal
        for name, method in METHODS[version].items():
            if method.message is None:
                continue
            admitted = set()
            for role, headers in roles.items():
                answer = await world.http.post(f"/1/{version}/{name}", json=_body(name), headers=headers)
                assert answer.status_code == 204 or answer.json()["code"] == "access_denied", (name, role)
                admitted |= {role} if answer.status_code == 204 else set()
            assert (
                admitted
                == {
                    "anyone": set(roles),
                    "self or internal": {"self", "internal"},
                    "internal": {"internal"},
                }[method.access.value]
            ), name

    async def test_a_faulty_token_is_refused_even_where_anyone_may_call(self, world: World) -> None:
        answer = await world.http.post(f"{V2}/send_magic_link", json=LINK, headers={"authorization": "bearer x"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "bearer"


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
