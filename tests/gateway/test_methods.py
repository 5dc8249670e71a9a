import json
import time
from typing import Any, Final

import pytest

from services.auth.handlers import HANDLERS
from services.gateway.endpoint import Access
from services.gateway.methods import METHODS, PATHS
from services.gateway.settings import GatewaySettings
from shared.audit import action_of
from shared.email_addresses import address_ordering_key
from shared.messages import Command, Message, OperatorList
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.partitions import ListPausedPartitions
from shared.messages.auth.signing_keys import ListSigningKeys
from shared.messages.auth.users import GetUser, GetUserConsent
from shared.messages.billing.customer_state import GetCustomerState
from shared.messages.billing.plan_changes import PreviewPlanChange
from shared.messages.billing.runs import GetStripeRun, GetStripeRunProgress, ListStripeRuns
from shared.messages.billing.subscriptions import GetSubscriptionHeartbeat, GetSubscriptionState, GetSubscriptionStatus
from shared.messages.gateway import GetSystemState
from shared.messages.mailer.branding import GetClientLooks, PreviewMail
from shared.messages.personal_data import GetUserProcess
from shared.sealing import Sealer
from tests.gateway.conftest import LINK, GatewayStack, Signer
from tests.gateway.fake_services import Refused
from tests.stack import eventually

UNAUDITED: Final[dict[type[Message], str]] = {
    GetClientLooks: "branding is visible to every recipient of the client's mails",
    GetUserConsent: "one value for a known user ID; back ends query it before every mail",
    GetStripeRun: "counts without personal data, polled every second during a run",
    GetStripeRunProgress: "counts without personal data, polled every second during a run",
    GetSubscriptionHeartbeat: "a boolean for a known user ID; back ends query it for every request",
    GetCustomerState: "plans without personal data for a known user ID; back ends query it for every request",
    GetSubscriptionState: "a status for a known user ID; back ends query it for every request",
    GetSubscriptionStatus: "a status for a known user ID; back ends query it for every request",
    GetUserProcess: "names of services, polled every second during an export or erasure",
    ListPausedPartitions: "names of topics",
    ListSigningKeys: "public keys",
    GetSystemState: "names of services and counts, polled every two seconds while somebody looks",
    PreviewMail: "sample values in a client's branding, without personal data",
    PreviewPlanChange: "what a price costs for a known user ID; the order that follows is audited",
    ListStripeRuns: "counts without personal data",
}
"""Queries with the internal key that need no audit entry, and the reason."""

CREDENTIAL_IN_BODY: Final = {"authenticate_user", "send_magic_link", "create_trial_and_magic_link"}


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


def test_every_list_with_the_internal_key_has_the_time_limit_of_lists() -> None:
    lists = {name: each for name, each in PATHS.items() if each.access is Access.INTERNAL and "/list_" in name}
    assert {name for name, each in lists.items() if not issubclass(each.message or Message, OperatorList)} == set()
    assert OperatorList.read_seconds < GatewaySettings.model_fields["reply_seconds"].default


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


@pytest.mark.parametrize(
    ("path", "status", "code", "meta"),
    [
        ("/2/2021-10-06/get_user", 404, "unknown_version", {"supported_version": "1"}),
        ("/v1/2021-10-06/get_user", 404, "unknown_version", {"supported_version": "1"}),
        ("/2/latest/get_user", 404, "unknown_version", {"supported_version": "1"}),
        ("/2/2021-10-06/get_user/", 404, "unknown_version", {"supported_version": "1"}),
        ("/2", 404, "not_found", {}),
        ("/2/", 404, "not_found", {}),
        ("/v1", 404, "not_found", {}),
        ("/robots.txt", 404, "not_found", {}),
        ("/users/unknown/route", 404, "not_found", {}),
        ("/1/2021-10-07/get_user", 404, "version_not_supported", {"versions": list(METHODS)}),
        ("/1/latest/get_user", 404, "version_not_supported", {"versions": list(METHODS)}),
        ("/1/2020-12-14/get_user", 404, "not_found", {"did_you_mean": "/1/2026-12-01/get_user"}),
        ("/1/2021-10-06/enrol_alpha_user", 404, "not_found", {}),
        ("/1/2021-10-06/get_user//", 404, "not_found", {"did_you_mean": "/1/2021-10-06/get_user"}),
        ("/1/2021-10-06/GET_USER", 404, "not_found", {"did_you_mean": "/1/2021-10-06/get_user"}),
        ("/1/2021-10-06", 404, "not_found", {}),
        ("/1/2021-10-06/", 404, "not_found", {}),
        ("/1", 404, "not_found", {}),
        ("/1/", 404, "not_found", {}),
        ("/nothing", 404, "not_found", {}),
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


class TestHeartbeat:
    async def test_user_may_omit_the_body(self, stack: GatewayStack) -> None:
        response = await stack.http.post(f"{V1}/get_subscription_status", headers=stack.bearer("user_7"))
        assert response.status_code == 204
        assert json.loads(stack.services.received[0].body) == {"user_id": "user_7"}
        assert stack.services.received[0].wire == "billing.get-subscription-heartbeat"

    async def test_user_may_send_an_empty_object(self, stack: GatewayStack) -> None:
        response = await stack.http.post(f"{V1}/get_subscription_status", json={}, headers=stack.bearer("user_7"))
        assert response.status_code == 204
        assert json.loads(stack.services.received[0].body) == {"user_id": "user_7"}

    @pytest.mark.parametrize("body", [{"user_id": ""}, {"user_id": None}, {"more": 1}])
    async def test_invalid_fields_are_refused(self, stack: GatewayStack, body: dict[str, Any]) -> None:
        response = await stack.http.post(f"{V1}/get_subscription_status", json=body, headers=stack.bearer())
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")

    async def test_another_user_is_refused(self, stack: GatewayStack) -> None:
        body = {"user_id": "user_2"}
        response = await stack.http.post(f"{V1}/get_subscription_status", json=body, headers=stack.bearer("user_1"))
        assert (response.status_code, response.json()["code"]) == (403, "access_denied")

    async def test_operator_names_the_user(self, stack: GatewayStack) -> None:
        response = await stack.http.post(f"{V1}/get_subscription_status", json={}, headers=stack.internal)
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")

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
                assert response.is_success or response.json()["code"] == "access_denied", (name, role)
                admitted |= {role} if response.is_success else set()
            assert (
                admitted
                == {
                    "anyone": set(roles),
                    "self or internal": {"self", "internal"},
                    "internal": {"internal"},
                }[method.access.value]
            ), name

    async def test_invalid_token_is_refused_even_for_public_methods(self, stack: GatewayStack) -> None:
        response = await stack.http.post(
            f"{V2}/list_news_items", json=_body("list_news_items"), headers={"authorization": "bearer x"}
        )
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "bearer"

    @pytest.mark.parametrize("path", [path for path, method in PATHS.items() if method.name in CREDENTIAL_IN_BODY])
    async def test_bearer_is_ignored_where_the_credential_is_in_the_body(self, stack: GatewayStack, path: str) -> None:
        """RFC 6749 section 6: the refresh token, the code or nothing is the credential."""
        revoked, foreign = stack.signer.token(), Signer.new("key-2").token()
        await stack.revoke(revoked)
        assert await eventually(lambda: self._is_refused(stack, revoked))
        jwts = [
            stack.signer.token(),
            stack.signer.token(exp=int(time.time()) - 1),
            stack.signer.token(aud="client_unknown"),
            stack.signer.token(v="2"),
            *(revoked, foreign, foreign[:-3], foreign + ".x"),
        ]
        ignored = [f"{scheme} {jwt}" for jwt in jwts for scheme in ("bearer", "Bearer")]
        ignored += [
            "Bearer null",
            "Bearer undefined",
            "Bearer",
            "bearer  x y",
            "",
            "null",
            "Basic dXNlcjpwYXNz",
            "a" * 9_000,
        ]
        stack.services.received.clear()
        for authorization in ignored:
            headers = {"authorization": authorization, "idempotency-key": "k"}
            response = await stack.http.post(path, json=_body(path.rpartition("/")[2]), headers=headers)
            assert response.status_code == 204, authorization
        assert {envelope.caller.kind for envelope in stack.services.received} == {"anonymous"}
        assert len({envelope.id for envelope in stack.services.received}) == 1, "a repeat must be recognized"
        wrong = {"authorization": "internal wrong"}
        denied = await stack.http.post(path, json=_body(path.rpartition("/")[2]), headers=wrong)
        assert (denied.status_code, denied.json()["code"]) == (403, "access_denied")

    async def _is_refused(self, stack: GatewayStack, token: str) -> bool:
        headers = {"authorization": f"bearer {token}"}
        response = await stack.http.post(f"{V2}/list_news_items", json={"client_id": "c"}, headers=headers)
        return response.status_code == 401


def _body(name: str) -> dict[str, Any]:
    banner = {"emoji": "x", "title": "t", "body": "b"}
    bodies: dict[str, dict[str, Any]] = {
        "send_magic_link": LINK,
        "create_trial_and_magic_link": {**LINK, "device": {"platform": "mac", "beak_id": "b", "fingerprint": "f"}},
        "authenticate_user": {"client_id": "c", "grant_type": "refresh_token", "refresh_token": "01.a.b"},
        "list_news_items": {"client_id": "c"},
        "create_checkout": {
            "user_id": "user_1",
            "items": [{"price_id": "price_1"}],
            "success_url": "https://a",
            "cancel_url": "https://a",
        },
        "list_plans": {},
        "list_rate_limits": {},
        "list_users": {"search": "ada@"},
        "resend_magic_link": {"user_id": "user_1"},
        "reconcile_user": {"user_id": "user_1"},
        "get_system_state": {},
        "preview_mail": {"template": "welcome"},
        "preview_plan_change": {"user_id": "user_1", "price_id": "price_1"},
        "change_plan": {"user_id": "user_1", "price_id": "price_1"},
        "report_usage": {"usage": [{"identifier": "1", "user_id": "user_1", "event_name": "api", "value": 1}]},
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
        "list_paused_partitions": {},
        "resume_partition": {"id": "mailer/mailer.commands/3"},
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
        "create_webhook_endpoint": {"url": "https://app.example/webhooks", "types": ["user.*"]},
        "update_webhook_endpoint": {"id": "webhookendpoint_1"},
        "delete_webhook_endpoint": {"id": "webhookendpoint_1"},
        "list_webhook_endpoints": {},
        "roll_webhook_secret": {"id": "webhookendpoint_1"},
        "list_webhook_deliveries": {},
        "replay_webhooks": {"endpoint_id": "webhookendpoint_1", "state": "failed"},
        "send_test_webhook": {"id": "webhookendpoint_1"},
    }
    return bodies.get(name, {"user_id": "user_1"})


@pytest.mark.parametrize("method", ["send_magic_link", "create_trial_and_magic_link"])
@pytest.mark.parametrize(("locale", "sent"), [("de_AT.UTF-8", "de-AT"), ("de-AT-u-mu-celsius", "de-AT"), ("?", None)])
async def test_locale_is_a_preference(stack: GatewayStack, method: str, locale: str, sent: str | None) -> None:
    device = {"platform": "mac", "beak_id": "b", "fingerprint": "f"}
    response = await stack.http.post(f"{V2}/{method}", json={**LINK, "device": device, "locale": locale})
    assert response.is_success, response.text
    assert json.loads(stack.services.received[-1].body).get("locale") == sent


async def test_locale_and_app_version_of_news_are_never_refused(stack: GatewayStack) -> None:
    for version, sent in (("v1.2.3 (4)", "1.2.3"), ("unknown", None), ("", None), ("1+" + "x" * 30_000, "1")):
        news = {"client_id": "client_1", "app_version": version, "locale": version}
        response = await stack.http.post(f"{V2}/list_news_items", json=news)
        assert response.is_success, response.text
        body = json.loads(stack.services.received[-1].body)
        assert (body.get("app_version"), body.get("locale")) == (sent, None)
