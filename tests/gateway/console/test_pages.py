"""Pages of operators: what they show, what they call, and what they refuse."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from services.gateway.console import console, pages
from services.gateway.endpoint import Access
from services.gateway.methods import METHODS
from services.operator.client import VERSION
from tests.gateway.console.console_app import ConsoleApp
from tests.gateway.fake_services import Refused
from tests.operator.responses import CLIENT, RESPONSES, VIEWS
from tests.operator.test_commands import BACK_ENDS, COMMANDS, POLLED

HOSTILE: Final = "<script>alert(1)</script>"
PLAN: Final = {
    "product_id": "prod_1",
    "name": "Pro",
    "description": None,
    "marketing_features": [],
    "features": ["export"],
    "unit_label": "seat",
    "prices": [
        {
            "price_id": "price_1",
            "lookup_key": "pro",
            "interval": "month",
            "interval_count": 3,
            "usage_type": "licensed",
            "trial_days": 14,
            "max_quantity": 5,
            "divide_by": None,
            "round": None,
            "tiers_mode": None,
            "currency": "usd",
            "amounts": {
                "usd": {
                    "unit_amount": 1200,
                    "unit_amount_decimal": "1200",
                    "decimals": 2,
                    "tax_behavior": "exclusive",
                    "tiers": [],
                }
            },
        }
    ],
}


TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
COMPLETE: Final[dict[str, Any]] = {
    **RESPONSES,
    "list_plans": {"plans": [PLAN]},
    # With the fields that have a default, as services send them.
    **{name: json.loads(view.model_validate(response).model_dump_json()) for name, (view, response) in VIEWS.items()},
}


@pytest.fixture(scope="module")
def console_app() -> ConsoleApp:
    """The console. Its templates are compiled once."""
    return ConsoleApp()


@pytest.fixture
def app(console_app: ConsoleApp) -> ConsoleApp:
    """The console, whose methods answer like those of the commands' tests."""
    console_app.methods.reset(COMPLETE)
    return console_app


PAGES: Final[list[tuple[str, str, str]]] = [
    ("/console/clients", "list_clients", "https://app.example/a"),
    ("/console/clients/client_1", "list_clients", 'data-copy="client_1"'),
    ("/console/clients/client_1/branding", "get_client_looks", "Beak &lt;mail@getbeak.app&gt;"),
    ("/console/clients/client_1/branding/preview?template=receipt", "preview_mail", "Your link"),
    ("/console/clients/client_1/branding/mail?template=receipt", "preview_mail", "<p>Hello</p>"),
    ("/console/plans", "list_plans", "12.00 USD"),
    ("/console/news", "list_all_news_items", "Down on Sunday"),
    ("/console/news/new", "list_clients", "Publish"),
    ("/console/news/newsitem_1", "list_all_news_items", 'value="de, fr-CA"'),
    ("/console/deliveries", "list_deliveries", "550 no such user"),
    ("/console/suppressions", "list_suppressions", "delivery_1"),
    ("/console/dead-letters", "list_dead_letters", "mailer.commands.17"),
    ("/console/dead-letters/mailer.commands.17", "list_dead_letters", "mailer.commands, partition 0, offset 17"),
    ("/console/partitions", "list_paused_partitions", "10 dead letters in a row"),
    ("/console/stripe/runs", "list_stripe_runs", "striperun_1"),
    ("/console/stripe/runs/striperun_1", "get_stripe_run", "striperun_1"),
    ("/console/payments", "list_payments", "12.50 CHF"),
    ("/console/disputes", "list_disputes", "500 JPY"),
    ("/console/subscriptions?id=sub_1", "get_subscription", "sub_stripe"),
    ("/console/subscriptions", "", "Find a subscription"),
    ("/console/keys", "list_signing_keys", "ES256"),
    ("/console/limits", "list_rate_limits", "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS"),
    ("/console/system", "get_system_state", "auth.commands"),
    ("/console/audit", "list_audit_entries", "create_client"),
    ("/console/webhooks", "list_webhook_endpoints", "https://app.example/webhooks"),
    ("/console/webhooks/webhookendpoint_1", "list_webhook_deliveries", "webhooksecret_1"),
    ("/console/webhooks/deliveries", "list_webhook_deliveries", "webhookevent_1"),
]
"""Path, the method that it calls, and a part of the page."""
ACTS: Final[list[tuple[str, dict[str, Any], str, dict[str, Any]]]] = [
    (
        "/console/clients",
        {"name": " Beak ", "redirect_uris": "https://a.example/\nhttps://b.example/\n", "press_to_redeem": "yes"},
        "create_client",
        {
            "name": "Beak",
            "redirect_uris": ["https://a.example/", "https://b.example/"],
            "press_to_redeem": True,
            "entitlements_claim": False,
        },
    ),
    (
        "/console/clients/client_1",
        {"name": "Beak", "version": "3"},
        "update_client",
        {"id": "client_1", "version": 3, "name": "Beak", "press_to_redeem": False, "entitlements_claim": False},
    ),
    (
        "/console/clients/client_1/redirect-uris/add",
        {"uri": "com.example:/c", "version": "3"},
        "update_client",
        {"id": "client_1", "version": 3, "redirect_uris": [*CLIENT["redirect_uris"], "com.example:/c"]},
    ),
    (
        "/console/clients/client_1/redirect-uris/remove",
        {"uri": "https://app.example/a", "version": "3"},
        "update_client",
        {"id": "client_1", "version": 3, "redirect_uris": ["https://app.example/b"]},
    ),
    ("/console/clients/client_1/disable", {}, "update_client", {"id": "client_1", "disabled": True}),
    ("/console/clients/client_1/enable", {}, "update_client", {"id": "client_1", "disabled": False}),
    (
        "/console/clients/client_1/branding",
        {"product_name": "Beak", "accent_colour": "", "locale": "de"},
        "set_client_looks",
        {"client_id": "client_1", "product_name": "Beak", "locale": "de"},
    ),
    ("/console/clients/client_1/branding/reset", {}, "set_client_looks", {"client_id": "client_1"}),
    (
        "/console/news/newsitem_1/remove",
        {"version": "1"},
        "remove_news_item",
        {"id": "newsitem_1", "version": 1},
    ),
    (
        "/console/suppressions/lift",
        {"recipient": "ada@example.com"},
        "lift_suppression",
        {"recipient": "ada@example.com", "although_complained": False},
    ),
    (
        "/console/suppressions/lift",
        {"delivery_id": "delivery_1", "although_complained": "yes"},
        "lift_suppression",
        {"delivery_id": "delivery_1", "although_complained": True},
    ),
    (
        "/console/dead-letters/mailer.commands.17/replay",
        {"again": "yes"},
        "replay_dead_letters",
        {"ids": ["mailer.commands.17"], "again": True, "although_too_old": False},
    ),
    (
        "/console/partitions/resume",
        {"id": "mailer/mailer.commands/3", "dead_letter": "yes"},
        "resume_partition",
        {"id": "mailer/mailer.commands/3", "dead_letter": True},
    ),
    (
        "/console/stripe/runs/verify",
        {"repair": "no", "changed_within_hours": "24"},
        "reconcile_subscriptions",
        {"repair": False, "changed_within_hours": 24},
    ),
    ("/console/stripe/runs/verify", {"repair": "yes"}, "reconcile_subscriptions", {"repair": True}),
    ("/console/stripe/runs/sweep", {"days": "3"}, "sweep_stripe_events", {"days": 3}),
    (
        "/console/stripe/runs/replay",
        {"types": "customer.*", "since": "2026-11-20T06:05"},
        "replay_stripe_events",
        {"event_ids": [], "types": ["customer.*"], "since": "2026-11-20T06:05:00+00:00", "kept": False},
    ),
    ("/console/stripe/runs/import", {}, "import_stripe_account", {}),
    ("/console/stripe/runs/striperun_1/stop", {}, "stop_stripe_run", {"run_id": "striperun_1"}),
    ("/console/stripe/runs/striperun_1/resume", {}, "resume_stripe_run", {"run_id": "striperun_1"}),
    (
        "/console/webhooks/webhookendpoint_1",
        {"url": "https://app.example/new", "types": ["payment.*", "user.erased"], "description": "", "version": "1"},
        "update_webhook_endpoint",
        {
            "id": "webhookendpoint_1",
            "version": 1,
            "url": "https://app.example/new",
            "types": ["payment.*", "user.erased"],
            "description": "",
        },
    ),
    (
        "/console/webhooks/webhookendpoint_1/enable",
        {},
        "update_webhook_endpoint",
        {"id": "webhookendpoint_1", "enabled": True},
    ),
    (
        "/console/webhooks/webhookendpoint_1/disable",
        {"version": "1"},
        "update_webhook_endpoint",
        {"id": "webhookendpoint_1", "version": 1, "enabled": False},
    ),
    (
        "/console/webhooks/webhookendpoint_1/replay",
        {"state": "failed", "since": "2026-11-20T06:05"},
        "replay_webhooks",
        {"endpoint_id": "webhookendpoint_1", "state": "failed", "since": "2026-11-20T06:05:00+00:00"},
    ),
    ("/console/webhooks/webhookendpoint_1/test", {}, "send_test_webhook", {"id": "webhookendpoint_1"}),
    ("/console/webhooks/webhookendpoint_1/delete", {}, "delete_webhook_endpoint", {"id": "webhookendpoint_1"}),
    ("/console/keys/rotate", {}, "rotate_signing_keys", {"emergency": False}),
    ("/console/keys/rotate", {"emergency": "yes"}, "rotate_signing_keys", {"emergency": True}),
]
"""Path, fields of the form, the method and its fields."""
SECRETS: Final[list[tuple[str, dict[str, Any], str, dict[str, Any]]]] = [
    (
        "/console/webhooks",
        {"url": " https://app.example/ ", "types": "*", "client_id": "client_1"},
        "create_webhook_endpoint",
        {"url": "https://app.example/", "types": ["*"], "description": "", "client_id": "client_1"},
    ),
    (
        "/console/webhooks/webhookendpoint_1/roll",
        {"overlap_hours": "0"},
        "roll_webhook_secret",
        {"id": "webhookendpoint_1", "overlap_hours": 0},
    ),
]
"""Acts whose response shows a secret, as ``ACTS``."""
BANNER: Final = {"emoji": "🦩", "title": "New", "body": "Text", "dismissible": "yes", "priority": "7"}


@pytest.mark.parametrize(("path", "method", "part"), PAGES, ids=[path for path, _, _ in PAGES])
async def test_page_shows_what_its_method_returns(app: ConsoleApp, path: str, method: str, part: str) -> None:
    response = await app.get(path)
    assert response.status_code == 200, response.text
    assert part in response.text
    assert not method or app.methods.named(method)
    assert {caller.key_name for caller in app.methods.callers} <= {"console:local"}


@pytest.mark.parametrize(
    ("path", "form", "method", "fields"), ACTS, ids=[f"{path} {method}" for path, _, method, _ in ACTS]
)
async def test_act_calls_its_method_and_leads_to_a_page(
    app: ConsoleApp, path: str, form: dict[str, Any], method: str, fields: dict[str, Any]
) -> None:
    response = await app.post(path, **form)
    assert response.status_code == 303, response.text
    assert app.methods.named(method) == [fields]
    followed = await app.get(response.headers["location"])
    assert followed.status_code == 200
    assert 'role="status"' in followed.text


@pytest.mark.parametrize(
    ("path", "form", "method"),
    [(path, form, method) for path, form, method, _ in ACTS],
    ids=[a[0] + a[2] for a in ACTS],
)
async def test_refused_act_shows_its_page_with_the_sentence(
    app: ConsoleApp, path: str, form: dict[str, Any], method: str
) -> None:
    app.methods.responses[method] = Refused("unavailable", "unavailable")
    response = await app.post(path, **form)
    assert response.status_code == 503, response.text
    assert 'role="alert"' in response.text
    assert "<h1" in response.text


@pytest.mark.parametrize("path", [path for path, method, _ in PAGES if method])
async def test_unavailable_method_is_explained_on_its_page(app: ConsoleApp, path: str) -> None:
    app.methods.responses = dict.fromkeys(app.methods.responses, Refused("unavailable", "unavailable"))
    response = await app.get(path)
    assert response.status_code in (200, 503)
    assert 'role="alert"' in response.text or response.status_code == 503


@pytest.mark.parametrize(
    "path", [path for path, _, _ in PAGES if path != "/console/clients/client_1/branding/mail?template=receipt"]
)
async def test_hostile_texts_are_escaped_on_every_page(app: ConsoleApp, path: str) -> None:
    app.methods.responses = {name: poisoned(response) for name, response in app.methods.responses.items()}
    response = await app.get(path)
    assert HOSTILE not in response.text
    assert not re.search(r'(href|src|action)="\s*javascript:', response.text)


def poisoned(value: Any, name: str = "") -> Any:
    """A response whose free texts are hostile; IDs, times and words with a meaning stay."""
    if isinstance(value, dict):
        return {key: poisoned(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, name) for each in value]
    kept = {"id", "code", "state", "status", "kind", "base64", "method", "service", "locale"}
    if not isinstance(value, str) or name in kept or name.endswith(("_at", "_by", "_id", "since", "at", "currency")):
        return value
    return HOSTILE


def methods_in(path: Path) -> set[str]:
    """Names of methods in the text of a module."""
    constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    return METHODS[VERSION].keys() & constants


CONSOLE: Final = {path.stem: methods_in(path) for path in Path(pages.__file__).parent.glob("*.py")}
"""Methods that each module of the console calls."""
PUBLIC: Final = {"get_customer_state", "list_plans"}
"""Methods of apps that a page shows; no command does."""
LOGIN: Final = {"access", "login", "sessions"}
"""Modules that log operators in."""
PERSON: Final = {"find_user"}
"""Methods without a page: the search of people calls `list_users`, which finds whole addresses too."""
OTHERS: Final = {"access", "calls", "console", "home", "login", "pages", "people", "sessions"}
"""Modules with tests of their own."""


def test_console_and_command_call_the_same_methods() -> None:
    console_methods = set().union(*(methods for module, methods in CONSOLE.items() if module not in LOGIN))
    commands = {method for _, methods, _ in COMMANDS for method in methods} | POLLED
    operators = {name for name, method in METHODS[VERSION].items() if method.access is Access.INTERNAL}
    assert commands - console_methods <= PERSON, "give these a page"
    assert console_methods - commands == PUBLIC, "give these a command"
    assert operators - console_methods - PERSON == BACK_ENDS


async def test_every_method_of_a_page_is_called(app: ConsoleApp) -> None:
    called: set[str] = set()
    for path, _, _ in PAGES:
        await app.get(path)
        called |= {name for name, _ in app.methods.calls}
    acts = [*((path, form) for path, form, _, _ in (*ACTS, *SECRETS)), ("/console/news/new", BANNER)]
    for path, form in (*acts, ("/console/news/newsitem_1", BANNER)):
        await app.post(path, **form)
        called |= {name for name, _ in app.methods.calls}
    assert set().union(*(methods for module, methods in CONSOLE.items() if module not in OTHERS)) - called == set()


async def test_filters_and_page_reach_the_method(app: ConsoleApp) -> None:
    await app.get(
        "/console/deliveries?state=failed&template=&recipient=ada%40example.com&since=2026-11-20T06:05&cursor=c"
    )
    assert app.methods.named("list_deliveries") == [
        {
            "limit": 50,
            "cursor": "c",
            "state": "failed",
            "recipient": "ada@example.com",
            "since": "2026-11-20T06:05:00+00:00",
        }
    ]


async def test_replay_of_all_dead_letters_has_the_filter_of_the_list(app: ConsoleApp) -> None:
    page = await app.get("/console/dead-letters?service=mailer&reason=failing&type=")
    assert app.methods.named("list_dead_letters") == [
        {"limit": 50, "filter": {"service": "mailer", "reason": "failing"}},
    ]
    # Within the part that htmx replaces with the filter.
    entries = page.text.partition('id="entries"')[2]
    hidden = dict(re.findall(r'type="hidden" name="(service|reason|type|topic)" value="([^"]*)"', entries))
    assert hidden == {"service": "mailer", "reason": "failing"}
    assert 'action="/console/dead-letters/replay"' in entries


async def test_next_page_keeps_the_filters(app: ConsoleApp) -> None:
    app.methods.responses["list_deliveries"] = {**COMPLETE["list_deliveries"], "next_cursor": "after this"}
    page = await app.get("/console/deliveries?state=failed")
    assert "/console/deliveries?state=failed&amp;cursor=after+this" in page.text


async def test_wrong_filter_is_explained_beside_the_filters(app: ConsoleApp) -> None:
    for headers, status in (({}, 422), ({"hx_request": "true"}, 200)):
        page = await app.get("/console/deliveries?since=yesterday", **headers)
        assert page.status_code == status
        assert 'role="alert"' in page.text
        assert 'value="yesterday"' in page.text


async def test_empty_lists_say_what_to_do(app: ConsoleApp) -> None:
    app.methods.responses["list_deliveries"] = {"deliveries": [], "next_cursor": None}
    assert "No mail or text was sent yet" in (await app.get("/console/deliveries")).text
    assert "Nothing matches" in (await app.get("/console/deliveries?state=failed")).text


async def test_version_conflict_keeps_what_was_typed(app: ConsoleApp) -> None:
    app.methods.responses["update_client"] = Refused("conflict", "client_changed")
    page = await app.post("/console/clients/client_1", name="Typed", version="2")
    assert page.status_code == 409
    assert 'value="Typed"' in page.text
    assert "Somebody changed the client" in page.text
    assert 'name="version" value="3"' in page.text


async def test_previewed_mail_runs_nothing_and_belongs_to_no_origin(app: ConsoleApp) -> None:
    mail = await app.get("/console/clients/client_1/branding/mail?template=welcome&accent_colour=%230a7d4f&scheme=dark")
    policy = mail.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script-src" not in policy
    assert app.methods.named("preview_mail") == [
        {"template": "welcome", "client_id": "client_1", "looks": {"accent_colour": "#0a7d4f"}}
    ]
    page = await app.get("/console/clients/client_1/branding")
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    assert " sandbox>" in page.text


async def test_news_item_is_made_of_the_form(app: ConsoleApp) -> None:
    form = {
        **BANNER,
        "cta": "Read",
        "url": "https://app.example/",
        "clients": ["client_1", "client_2"],
        "locales": "de, fr",
    }
    response = await app.post("/console/news/new", **form, ends_at="2026-12-24T18:00")
    assert response.status_code == 303, response.text
    (item,) = app.methods.named("create_news_item")
    action = {"cta": "Read", "url": "https://app.example/"}
    payload = {"emoji": "🦩", "title": "New", "body": "Text", "action": action}
    assert item == {
        "primary": {"code": "generic_banner", "dismissible": True, "payload": payload},
        "clients": ["client_1", "client_2"],
        "locales": ["de", "fr"],
        "priority": 7,
        "ends_at": "2026-12-24T18:00:00+00:00",
    }


async def test_news_item_of_another_kind_has_the_banner_as_fallback(app: ConsoleApp) -> None:
    await app.post("/console/news/newsitem_1", **BANNER, version="1", code="survey", payload='{"questions": 3}')
    (item,) = app.methods.named("update_news_item")
    assert item["primary"] == {"code": "survey", "dismissible": True, "payload": {"questions": 3}}
    assert (item["fallback"]["payload"]["title"], item["version"]) == ("New", 1)
    refused = await app.post("/console/news/newsitem_1", **BANNER, code="survey", payload="[1]")
    assert refused.status_code == 422
    assert app.methods.named("update_news_item") == []
    assert "Write one JSON object" in refused.text


async def test_preview_of_news_escapes_what_is_typed(app: ConsoleApp) -> None:
    part = await app.post("/console/news/preview", **{**BANNER, "body": HOSTILE})
    assert part.status_code == 200
    assert "&lt;script&gt;" in part.text
    assert "<html" not in part.text


async def test_replay_of_a_filter_goes_on_until_nothing_is_left(app: ConsoleApp) -> None:
    letters = [{"id": f"auth.commands.{number}", "outcome": "replayed"} for number in range(3)]
    app.methods.responses["replay_dead_letters"] = {"letters": letters, "next_cursor": "more"}
    first = await app.post("/console/dead-letters/replay", service="mailer", again="yes")
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', first.text))
    app.methods.responses["replay_dead_letters"] = {"letters": letters[:1], "next_cursor": None}
    last = await app.post(
        "/console/dead-letters/replay", **{k: v for k, v in fields.items() if k not in ("csrf", "once")}
    )
    (call,) = app.methods.named("replay_dead_letters")
    assert call == {
        "filter": {"service": "mailer"},
        "limit": 100,
        "cursor": "more",
        "again": True,
        "although_too_old": False,
    }
    assert "<strong>4</strong> replayed" in last.text
    assert "Done." in last.text


@pytest.mark.parametrize(("name", "text"), [("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("request-id", TRACE)])
async def test_dead_letter_shows_its_trace(app: ConsoleApp, name: str, text: str) -> None:
    header = {"name": name, "value": {"size": len(text), "start": 0, "text": text, "base64": None}}
    letter = {**COMPLETE["list_dead_letters"]["letters"][0], "headers": [header]}
    app.methods.responses["list_dead_letters"] = {"letters": [letter], "next_cursor": None}
    for path in ("/console/dead-letters", "/console/dead-letters/mailer.commands.17"):
        assert TRACE in (await app.get(path)).text


async def test_unfinished_run_is_polled_and_a_finished_one_is_not(app: ConsoleApp) -> None:
    run = COMPLETE["get_stripe_run"]
    for path in ("/console/stripe/runs/striperun_1", "/console/stripe/runs/striperun_1/progress"):
        for status, polled in (("running", True), ("done", False)):
            app.methods.responses["get_stripe_run"] = {**run, "status": status}
            assert ("data-poll" in (await app.get(path)).text) is polled


@pytest.mark.parametrize("path", ["/console/system", "/console/stripe/runs/striperun_1"])
async def test_refreshed_parts_make_no_audit_entries(app: ConsoleApp, path: str) -> None:
    """A page that is open for a day would make 43,200."""
    app.methods.responses["get_stripe_run"] = {**COMPLETE["get_stripe_run"], "status": "running"}
    polled = re.search(r'data-poll hx-get="([^"]+)"', (await app.get(path)).text)
    assert polled
    app.methods.calls.clear()
    part = await app.get(polled[1], hx_request="true")
    assert (part.status_code, "<html" in part.text) == (200, False)
    messages = [METHODS[VERSION][name].message for name, _ in app.methods.calls]
    assert messages
    assert [message for message in messages if message is None or message.audited] == []


async def test_system_is_shown_while_services_are_away(app: ConsoleApp) -> None:
    for method in ("list_paused_partitions", "list_dead_letters", "list_stripe_runs"):
        app.methods.responses[method] = Refused("unavailable", "reply_timeout")
    page = await app.get("/console/system")
    assert page.status_code == 200
    assert "away" in page.text
    assert "data-poll" in page.text


async def test_rate_limits_of_somebody_are_asked_with_kind_and_subject(app: ConsoleApp) -> None:
    await app.get("/console/limits?kind=address&subject=")
    await app.get("/console/limits?kind=network&subject=203.0.113.7")
    assert app.methods.named("list_rate_limits") == [{}, {"kind": "network", "subject": "203.0.113.7"}]


async def test_unknown_client_is_not_found(app: ConsoleApp) -> None:
    page = await app.get("/console/clients/client_2")
    assert page.status_code == 404
    assert "No client has this ID" in page.text


def test_every_page_is_linked_or_below_a_linked_one() -> None:
    linked = {table.link.path for table in console.TABLES if table.link is not None}
    for table in console.TABLES:
        for entry in table.entries:
            assert any(entry.path == path or entry.path.startswith(f"{path}/") for path in linked - {"/console"}) or (
                entry.path.count("/") == 1
            ), entry.path
