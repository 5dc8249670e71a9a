"""Every operators' verb as a person types it: which methods it calls, and what is shown of the answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.gateway.endpoint import Access
from services.gateway.methods import METHODS
from services.operator.client import VERSION
from services.operator.errors import OutOfReach, RefusedVerb
from tests.operator.answers import AT, PAGES
from tests.operator.conftest import COMMAND, Nest

VERBS: list[tuple[str, list[str], str]] = [
    ("clients list", ["list_clients"], "https://app.example/a, https://app.example/b"),
    ("clients create Beak --redirect-uri https://app.example/a --id client_1", ["create_client"], "client_1"),
    ("clients update client_1 --name Beak --version 2", ["update_client"], "client_1\tBeak"),
    ("clients disable client_1 --yes", ["update_client"], "client_1"),
    ("clients enable client_1", ["update_client"], "client_1"),
    ("clients looks show client_1", ["get_client_looks"], "Beak <mail@getbeak.app>"),
    ("clients looks set client_1 --locale de", ["get_client_looks", "set_client_looks"], "locale"),
    ("clients looks reset client_1", ["set_client_looks"], "locale"),
    ("news list", ["list_all_news_items"], "newsitem_1\tDown on Sunday\t-\tde, fr-CA"),
    ("news list --client client_1", ["list_all_news_items"], "Down on Sunday"),
    ("news create BANNER", ["create_news_item"], "newsitem_1"),
    ("news update newsitem_1 BANNER --version 1", ["update_news_item"], "newsitem_1"),
    ("news remove newsitem_1 --yes", ["remove_news_item"], "removed newsitem_1"),
    ("users find ada@example.com", ["find_user"], "user_1\temail\tada@example.com"),
    ("users find +41791234567", ["find_user"], "user_1"),
    ("users show user_1", ["get_user"], "ada@example.com"),
    ("users sessions user_1", ["list_sessions"], "authzcode_1\tclient_1\tmac\tZurich, CH (203.0.113.0/24)"),
    ("users sessions user_1 --end all --yes", ["revoke_sessions", "list_sessions"], "authzcode_1"),
    ("users sessions user_1 --end authzcode_1 --yes", ["revoke_sessions", "list_sessions"], "authzcode_1"),
    ("users export user_1", ["export_user", "get_user_export"], "newsitem_1"),
    ("users export --process userproc_1", ["get_user_process", "get_user_export"], "newsitem_1"),
    ("users erase user_1 --stripe --yes", ["erase_user"], f"billing\t{AT}"),
    ("users erase --process userproc_1", ["get_user_process"], f"news\t{AT}"),
    ("deliveries list --to ada@example.com --state failed", ["list_deliveries"], "550 no such user"),
    ("suppressions list", ["list_suppressions"], "bounce"),
    ("suppressions lift ada@example.com", ["lift_suppression"], "delivery_1"),
    ("dead list --service mailer --since 2026-11-20", ["list_dead_letters"], "mailer.commands.17"),
    ("dead show mailer.commands.17", ["list_dead_letters"], "mailer.commands, partition 0, offset 17"),
    ("dead replay mailer.commands.17", ["replay_dead_letters"], "1 put back"),
    ("dead replay --all --reason failing", ["replay_dead_letters"], "1 put back"),
    ("audit list --action create_client --outcome done --since 2026-11-20", ["list_audit_entries"], "auditentry_1"),
    ("keys list", ["list_signing_keys"], "k1\tES256\tactive"),
    ("keys rotate", ["rotate_signing_keys"], "k1"),
    ("keys rotate --emergency --yes", ["rotate_signing_keys"], "k1"),
    ("stripe subscription sub_1", ["get_subscription"], "sub_1\tuser_1\tactive\tyes\tyes\tyes"),
    ("stripe subscription --user user_1", ["get_subscription"], "sub_stripe"),
    ("stripe payments --user user_1", ["list_payments"], "12.50 CHF\trequires_payment_method\tinsufficient_funds"),
    ("stripe disputes --status needs_response --limit 5", ["list_disputes"], "500 JPY\tneeds_response\tfraudulent"),
    ("stripe verify", ["reconcile_subscriptions", "list_stripe_differences"], "striperun_1 done"),
    ("stripe reconcile --changed-within 24", ["reconcile_subscriptions", "list_stripe_differences"], "2 customers"),
    ("stripe verify --run striperun_1", ["resume_stripe_run", "list_stripe_differences"], "striperun_1 done"),
    ("stripe sweep --days 3", ["sweep_stripe_events", "list_stripe_differences"], "striperun_1"),
    ("stripe replay evt_1 --no-wait", ["replay_stripe_events"], "striperun_1"),
    ("stripe import --yes", ["import_stripe_account", "list_stripe_differences"], "striperun_1"),
    ("stripe runs", ["list_stripe_runs"], "striperun_1\tverify\tdone\t0\tno"),
    ("stripe stop striperun_1", ["stop_stripe_run"], "striperun_1 stopped"),
]
LOCAL = {"up", "services", "run", "doctor", "mail preview", "topics apply", "topics check"}
"""Verbs that call no method; tests of their own."""
ASKING = ("get_stripe_run",)
"""Only while a run goes on."""


@pytest.fixture
def banner(tmp_path: Path) -> str:
    file = tmp_path / "banner.json"
    file.write_text(json.dumps({"primary": {"payload": {"emoji": "", "title": "Down", "body": "For an hour."}}}))
    return str(file)


def typed(line: str, banner: str) -> list[str]:
    return [banner if word == "BANNER" else word for word in line.split()]


def verbs(group: Any, *before: str) -> dict[str, Any]:
    """All there are, by their words."""
    found = {}
    for name, command in group.commands.items():
        found |= verbs(command, *before, name) if hasattr(command, "commands") else {" ".join([*before, name]): command}
    return found


@pytest.mark.parametrize(("line", "methods", "shown"), VERBS, ids=[line for line, _, _ in VERBS])
def test_a_verb_asks_what_its_method_takes_and_shows_the_answer(
    nest: Nest, banner: str, line: str, methods: list[str], shown: str
) -> None:
    done = nest.run(*typed(line, banner))
    assert done.exit_code == 0, done.output
    assert [method for method, _ in nest.asked] == methods
    assert shown in done.stdout
    assert "\x1b" not in done.output


def options(line: str) -> set[str]:
    """What the verb of a line can be told besides."""
    command = next(command for name, command in verbs(COMMAND).items() if f"{line} ".startswith(f"{name} "))
    return {each for parameter in command.params for each in parameter.opts}


@pytest.mark.parametrize("line", [line for line, _, _ in VERBS if "--json" in options(line)])
def test_a_verb_says_json_and_nothing_else_to_a_script(nest: Nest, banner: str, line: str) -> None:
    words = typed(line, banner)
    done = nest.run(*words, "--json")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)


def test_every_verb_is_tried_here_or_calls_no_method() -> None:
    tried = {name for name in verbs(COMMAND) for line, _, _ in VERBS if f"{line} ".startswith(f"{name} ")}
    assert set(verbs(COMMAND)) == tried | LOCAL


def test_every_operators_method_has_a_verb() -> None:
    operators = {name for name, method in METHODS[VERSION].items() if method.access is Access.INTERNAL}
    called = {method for _, methods, _ in VERBS for method in methods}
    assert operators - called - set(ASKING) == set()


def test_every_verb_shows_how_it_is_used() -> None:
    for name, command in verbs(COMMAND).items():
        assert f"nest {name}" in (command.epilog or ""), name
        assert command.help, name


@pytest.mark.parametrize("method", PAGES)
def test_what_is_answered_here_is_what_nest_answers(method: str) -> None:
    kind, said = PAGES[method]
    kind.model_validate(said)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("clients disable client_1", "Disable this client?"),
        ("news remove newsitem_1", "Remove it?"),
        ("users sessions user_1 --end all", "End all sessions of this user?"),
        ("users erase user_1", "goes on collecting"),
        ("users erase user_1 --stripe", "ends its subscriptions at once"),
        ("keys rotate --emergency", "Replace all signing keys?"),
        ("stripe import", "Take it over?"),
        ("dead replay --all --although-too-old", "mails may go out twice"),
    ],
)
def test_what_can_not_be_undone_is_asked_about_and_a_no_calls_nothing(nest: Nest, line: str, asked: str) -> None:
    done = nest.run(*line.split(), typed="n\n")
    assert (done.exit_code, nest.asked) == (1, [])
    assert asked in done.stderr
    # What was typed is echoed here, as a terminal does.
    assert done.stdout.strip() in ("", "n")


@pytest.mark.parametrize(
    "line",
    [
        "clients create",
        "clients create Beak",
        "news create /nowhere/banner.json",
        "users export",
        "users export user_1 --process userproc_1",
        "users erase",
        "deliveries list --state nope",
        "audit list --limit 0",
        "dead replay",
        "dead replay a.1 --all",
        "stripe subscription",
        "stripe subscription sub_1 --user user_1",
        "stripe sweep --days 31",
        "stripe replay",
        "stripe payments --limit 501",
        "topics check",
        "nothing",
    ],
)
def test_what_is_typed_wrongly_is_said_with_code_2_and_calls_nothing(nest: Nest, line: str) -> None:
    done = nest.run(*line.split())
    assert (done.exit_code, nest.asked) == (2, [])
    assert "Error" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("line", [line for line, methods, _ in VERBS if methods])
def test_what_is_in_the_way_is_one_line_with_code_1(nest: Nest, banner: str, line: str) -> None:
    for failure in (OutOfReach("can't reach Nest"), RefusedVerb(404, "not_found", {"request_id": "r"})):
        nest.answers = dict.fromkeys(nest.answers, failure)
        done = nest.run(*typed(line, banner))
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"nest: {failure}\n"


def test_an_item_can_be_piped_in(nest: Nest) -> None:
    item = {"primary": {"payload": {"emoji": "", "title": "Down", "body": "For an hour."}}}
    assert nest.run("news", "create", "-", typed=json.dumps(item)).exit_code == 0
    assert nest.asked == [("create_news_item", item)]


def test_all_pages_of_news_are_listed(nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    (item,) = nest.answers["list_all_news_items"]
    pages = [[{**item, "id": f"newsitem_{number}"} for number in range(1000)], [item]]
    cursors: list[str | None] = []

    def paged(method: str, body: dict[str, Any]) -> Any:
        cursors.append(body.get("cursor"))
        return pages.pop(0)

    monkeypatch.setattr(nest, "call", paged)
    assert len(nest.run("news", "list").stdout.splitlines()) == 1 + 1001
    assert cursors == [None, "newsitem_999"]


def test_an_export_is_kept_in_a_file_for_its_owner_alone(nest: Nest, tmp_path: Path) -> None:
    to = tmp_path / "ada.json"
    to.write_text("older")
    to.chmod(0o644)
    done = nest.run("users", "export", "user_1", "--to", str(to))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written: {to}\n")
    assert json.loads(to.read_text())["services"]["news"]["dismissals"] == [{"newsItemId": "newsitem_1"}]
    assert to.stat().st_mode & 0o777 == 0o600
    nowhere = nest.run("users", "export", "user_1", "--to", str(tmp_path))
    assert (nowhere.exit_code, "can't be written" in nowhere.stderr) == (1, True)


def test_pages_of_an_export_become_one_document(nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {**nest.answers["get_user_export"], "next_cursor": 1}
    pages = [first, nest.answers["get_user_export"]]
    usual = nest.call
    monkeypatch.setattr(
        nest, "call", lambda method, body: pages.pop(0) if method == "get_user_export" else usual(method, body)
    )
    whole = json.loads(nest.run("users", "export", "user_1").stdout)
    assert whole["services"]["news"]["dismissals"] == [{"newsItemId": "newsitem_1"}] * 2
    assert "next_cursor" not in whole


def test_an_erasure_that_waits_says_for_whom_and_how_to_look_again(nest: Nest) -> None:
    waiting = {
        **nest.answers["erase_user"],
        "state": "running",
        "finished_at": None,
        "services": [{"service": "billing", "done_at": None, "waits_for": "stripe", "reason": "no route"}],
    }
    nest.answers["erase_user"] = nest.answers["get_user_process"] = waiting
    done = nest.run("users", "erase", "user_1", "--yes", "--wait", "0.1")
    assert done.exit_code == 2
    assert "waiting for billing (which waits for stripe: no route)" in done.stderr
    assert "nest users erase --process userproc_1" in done.stderr
    assert "stripe\t-\tno route" in done.stdout


def test_differences_from_stripe_end_with_code_1_and_are_shown(nest: Nest) -> None:
    nest.answers["reconcile_subscriptions"] = {**nest.answers["reconcile_subscriptions"], "differences": 1}
    nest.answers["list_stripe_differences"] = {
        "differences": [
            {
                "object": "subscription",
                "stripe_id": "sub_stripe",
                "id": "sub_1",
                "kind": "differs",
                "state": "found",
                "fields": [{"field": "status", "ours": "active", "theirs": "canceled"}],
            }
        ],
        "next_cursor": None,
    }
    done = nest.run("stripe", "verify")
    assert done.exit_code == 1
    assert "sub_stripe\tsub_1" in done.stdout
    assert "canceled" in done.stdout
