"""Every operator command: the methods that it calls, and what it prints of their responses."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.gateway.endpoint import Access
from services.gateway.methods import METHODS
from services.operator.client import VERSION, Refused, Unreachable
from tests.deploy.environments import COMMAND_LINE
from tests.operator.conftest import NestStub
from tests.operator.responses import AT, VIEWS

COMMANDS: list[tuple[str, list[str], str]] = [
    ("clients list", ["list_clients"], "https://app.example/a, https://app.example/b"),
    ("clients create Beak --redirect-uri https://app.example/a --id client_1", ["create_client"], "client_1"),
    ("clients update client_1 --name Beak --version 2", ["update_client"], "client_1\tBeak"),
    ("clients disable client_1 --yes", ["update_client"], "client_1"),
    ("clients enable client_1", ["update_client"], "client_1"),
    ("clients looks show client_1", ["get_client_looks"], "Beak <mail@getbeak.app>"),
    ("clients looks set client_1 --locale de", ["get_client_looks", "set_client_looks"], "locale"),
    ("clients looks reset client_1", ["set_client_looks"], "locale"),
    ("mail show magic-link --client client_1 --locale de", ["preview_mail"], "Subject: Your link"),
    ("limits list", ["list_rate_limits"], "magic-links-per-address\t1/1m, 5/1h\t1, 3"),
    ("limits list address ada@example.com", ["list_rate_limits"], "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS"),
    ("system show", ["get_system_state"], "auth\trunning\tauth-1\t4\t0.3\t12.5"),
    ("news list", ["list_all_news_items"], "newsitem_1\tDown on Sunday\t-\tde, fr-CA"),
    ("news list --client client_1", ["list_all_news_items"], "Down on Sunday"),
    ("news create BANNER", ["create_news_item"], "newsitem_1"),
    ("news update newsitem_1 BANNER --version 1", ["update_news_item"], "newsitem_1"),
    ("news remove newsitem_1 --yes", ["remove_news_item"], "removed newsitem_1"),
    ("users list --search ada@ --since 2026-11-20", ["list_users"], "user_1\tada@example.com"),
    ("users resend user_1", ["resend_magic_link"], "ordered"),
    ("users reconcile user_1", ["reconcile_user"], "2"),
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
    ("webhooks list --client client_1", ["list_webhook_endpoints"], "https://app.example/webhooks\tuser.*"),
    (
        "webhooks create https://app.example/webhooks --type user.* --type trial.started --client client_1",
        ["create_webhook_endpoint"],
        "whsec_",
    ),
    ("webhooks update webhookendpoint_1 --type * --version 2", ["update_webhook_endpoint"], "webhookendpoint_1"),
    ("webhooks enable webhookendpoint_1", ["update_webhook_endpoint"], "webhookendpoint_1"),
    ("webhooks disable webhookendpoint_1 --yes", ["update_webhook_endpoint"], "webhookendpoint_1"),
    ("webhooks delete webhookendpoint_1 --yes", ["delete_webhook_endpoint"], "webhookendpoint_1"),
    ("webhooks roll webhookendpoint_1 --overlap-hours 0", ["roll_webhook_secret"], "whsec_"),
    ("webhooks deliveries --state pending --limit 5", ["list_webhook_deliveries"], "user.created\tpending\t1\t503"),
    ("webhooks replay webhookendpoint_1 --state failed --since 2026-11-20", ["replay_webhooks"], "3"),
    ("webhooks test webhookendpoint_1", ["send_test_webhook"], "503\tstatus\t12\twebhookevent_1"),
    ("dead list --service mailer --since 2026-11-20", ["list_dead_letters"], "mailer.commands.17"),
    ("dead show mailer.commands.17", ["list_dead_letters"], "mailer.commands, partition 0, offset 17"),
    ("dead replay mailer.commands.17", ["replay_dead_letters"], "1 replayed"),
    ("dead replay --all --reason failing", ["replay_dead_letters"], "1 replayed"),
    ("partitions list", ["list_paused_partitions"], "mailer/mailer.commands/3\t10 dead letters in a row\t17"),
    ("partitions resume mailer/mailer.commands/3", ["resume_partition"], "resumed mailer/mailer.commands/3"),
    ("partitions resume mailer/mailer.commands/3 --dead-letter --yes", ["resume_partition"], "resumed"),
    ("audit list --action create_client --outcome done --since 2026-11-20", ["list_audit_entries"], "auditentry_1"),
    ("keys list", ["list_signing_keys"], "k1\tES256\tactive"),
    ("keys rotate", ["rotate_signing_keys"], "k1"),
    ("keys rotate --emergency --yes", ["rotate_signing_keys"], "k1"),
    ("stripe subscription sub_1", ["get_subscription"], "sub_1\tuser_1\tactive\tyes\tyes\tyes"),
    ("stripe subscription --user user_1", ["get_subscription"], "sub_stripe"),
    ("stripe payments --user user_1", ["list_payments"], "12.50 CHF\trequires_payment_method\tinsufficient_funds"),
    ("stripe disputes --status needs_response --limit 5", ["list_disputes"], "500 JPY\tneeds_response\tfraudulent"),
    ("stripe history user_1", ["list_billing_history"], "payment-refunded\t2.00 USD"),
    ("stripe history user_1", ["list_billing_history"], "1 x price_1 -> 9 x price_1"),
    ("stripe history user_1", ["list_billing_history"], "dispute-funds-withdrawn\t3.30 USD"),
    ("stripe events user_1", ["list_stripe_events"], "invoice.payment_failed\tread\t"),
    ("stripe events user_1", ["list_stripe_events"], "charge.refunded\tpending\t"),
    ("stripe verify", ["reconcile_subscriptions", "list_stripe_differences"], "striperun_1 done"),
    ("stripe reconcile --changed-within 24", ["reconcile_subscriptions", "list_stripe_differences"], "2 customers"),
    ("stripe verify --run striperun_1", ["resume_stripe_run", "list_stripe_differences"], "striperun_1 done"),
    ("stripe sweep --days 3", ["sweep_stripe_events", "list_stripe_differences"], "striperun_1"),
    ("stripe replay evt_1 --no-wait", ["replay_stripe_events"], "striperun_1"),
    ("stripe import --yes", ["import_stripe_account", "list_stripe_differences"], "striperun_1"),
    ("stripe runs", ["list_stripe_runs"], "striperun_1\tverify\tdone\t0\tno"),
    ("stripe stop striperun_1", ["stop_stripe_run"], "striperun_1 stopped"),
]
"""Command line, called methods, and a part of the output."""
LOCAL = {
    "up",
    "services",
    "run",
    "database dump",
    "database migrate",
    "database restore",
    "database status",
    "doctor",
    "keys reseal",
    "login",
    "mail preview",
    "offsets recover-users",
    "offsets rewind",
    "offsets save",
    "profiles list",
    "profiles remove",
    "stripe setup",
    "topics apply",
    "topics check",
    "topics grow",
}
"""Commands that call no method; other files test them."""
POLLED = {"get_stripe_run"}
"""Methods that are called only while a run is in progress."""
BACK_ENDS = {"report_usage"}
"""Methods for back ends alone."""


@pytest.fixture
def banner(tmp_path: Path) -> str:
    """A file with a news item."""
    file = tmp_path / "banner.json"
    file.write_text(json.dumps({"primary": {"payload": {"emoji": "", "title": "Down", "body": "For an hour."}}}))
    return str(file)


def words(line: str, banner: str) -> list[str]:
    return [banner if word == "BANNER" else word for word in line.split()]


def all_commands(group: Any, *before: str) -> dict[str, Any]:
    """Return all commands by their full names, such as `users find`."""
    found = {}
    for name, command in group.commands.items():
        line = (*before, name)
        found |= all_commands(command, *line) if hasattr(command, "commands") else {" ".join(line): command}
    return found


def options(line: str) -> set[str]:
    """Return the options of the command in a command line."""
    command = next(command for name, command in all_commands(COMMAND_LINE).items() if f"{line} ".startswith(f"{name} "))
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize(("line", "methods", "output"), COMMANDS, ids=[line for line, _, _ in COMMANDS])
def test_command_sends_valid_requests_and_prints_the_response(
    nest: NestStub, banner: str, line: str, methods: list[str], output: str
) -> None:
    done = nest.run(*words(line, banner))
    assert done.exit_code == 0, done.output
    assert [method for method, _ in nest.calls] == methods
    assert output in done.stdout
    assert "\x1b" not in done.output


@pytest.mark.parametrize("line", [line for line, _, _ in COMMANDS if "--json" in options(line)])
def test_json_output_contains_nothing_else(nest: NestStub, banner: str, line: str) -> None:
    done = nest.run(*words(line, banner), "--json")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)


def test_every_command_is_tested() -> None:
    tested = {
        name for name in all_commands(COMMAND_LINE) for line, _, _ in COMMANDS if f"{line} ".startswith(f"{name} ")
    }
    assert set(all_commands(COMMAND_LINE)) == tested | LOCAL


def test_every_operators_method_has_a_command() -> None:
    methods = {name for name, method in METHODS[VERSION].items() if method.access is Access.INTERNAL}
    called = {method for _, called, _ in COMMANDS for method in called}
    assert methods - called - POLLED == BACK_ENDS


def test_every_command_has_a_description_and_an_example() -> None:
    for name, command in all_commands(COMMAND_LINE).items():
        assert f"nest {name}" in (command.epilog or ""), name
        assert command.help, name


@pytest.mark.parametrize("method", VIEWS)
def test_responses_of_the_stub_are_valid(method: str) -> None:
    view, response = VIEWS[method]
    view.model_validate(response)


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ("clients disable client_1", "Disable this client?"),
        ("news remove newsitem_1", "Remove it?"),
        ("webhooks delete webhookendpoint_1", "Delete this endpoint?"),
        ("webhooks disable webhookendpoint_1", "Disable this endpoint?"),
        ("users sessions user_1 --end all", "End all sessions of this user?"),
        ("users erase user_1", "continues to collect"),
        ("users erase user_1 --stripe", "ends its subscriptions at once"),
        ("keys rotate --emergency", "Replace all signing keys?"),
        ("stripe import", "Take it over?"),
        ("dead replay --all --although-too-old", "mails may be sent twice"),
        ("partitions resume mailer/mailer.commands/3 --dead-letter", "becomes a dead letter"),
    ],
)
def test_declined_confirmation_calls_nothing(nest: NestStub, line: str, question: str) -> None:
    done = nest.run(*line.split(), stdin="n\n")
    assert (done.exit_code, nest.calls) == (1, [])
    assert question in done.stderr
    # The runner echoes the input, as a terminal does.
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
        "webhooks create https://app.example/webhooks",
        "webhooks replay webhookendpoint_1",
        "webhooks roll webhookendpoint_1 --overlap-hours 169",
        "audit list --limit 0",
        "dead replay",
        "dead replay a.1 --all",
        "stripe subscription",
        "stripe subscription sub_1 --user user_1",
        "stripe sweep --days 31",
        "stripe replay",
        "stripe payments --limit 501",
        "topics check",
        "limits list address",
        "nothing",
    ],
)
def test_wrong_usage_exits_with_code_2_and_calls_nothing(nest: NestStub, line: str) -> None:
    done = nest.run(*line.split())
    assert (done.exit_code, nest.calls) == (2, [])
    assert "Error" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("line", [line for line, methods, _ in COMMANDS if methods])
def test_error_is_one_line_with_code_1(nest: NestStub, banner: str, line: str) -> None:
    for error in (Unreachable("can't reach Nest"), Refused(404, "not_found", {"request_id": "r"})):
        nest.responses = dict.fromkeys(nest.responses, error)
        done = nest.run(*words(line, banner))
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"nest: {error}\n"


@pytest.mark.parametrize("line", [line for line, methods, _ in COMMANDS if methods])
def test_error_with_json_is_one_object_with_code_message_docs_and_request(
    nest: NestStub, banner: str, line: str
) -> None:
    docs = "https://api.example.com/reference#error-not_found"
    refused = Refused(404, "not_found", {"request_id": "r", "limit": 3}, message="It does not exist.", docs=docs)
    unreachable = {"code": "unreachable", "message": "can't reach Nest", "docs": None, "request_id": None, "meta": {}}
    for error, expected in (
        (Unreachable("can't reach Nest"), unreachable),
        (
            refused,
            {
                "code": "not_found",
                "message": "It does not exist.",
                "docs": docs,
                "request_id": "r",
                "meta": {"request_id": "r", "limit": 3},
            },
        ),
    ):
        nest.responses = dict.fromkeys(nest.responses, error)
        done = nest.run(*words(line, banner), "--json")
        assert (done.exit_code, done.stdout) == (1, "")
        assert json.loads(done.stderr) == expected


@pytest.mark.parametrize("name", all_commands(COMMAND_LINE))
def test_wrong_usage_of_every_command_with_json_is_an_object(nest: NestStub, name: str) -> None:
    done = nest.run(*name.split(), "--no-such-option", "--json")
    assert (done.exit_code, done.stdout, nest.calls) == (2, "", [])
    error = json.loads(done.stderr)
    assert (error["code"], error["docs"], error["request_id"]) == ("usage", None, None)
    assert "--no-such-option" in error["message"]


def test_declined_confirmation_with_json_is_an_object(nest: NestStub) -> None:
    done = nest.run("clients", "disable", "client_1", "--json", stdin="n\n")
    assert (done.exit_code, json.loads(done.stderr)["code"], nest.calls) == (1, "aborted", [])


def test_unfinished_work_with_json_is_an_object_and_exits_with_code_2(nest: NestStub) -> None:
    running = {**nest.responses["export_user"], "state": "running", "finished_at": None, "services": []}
    nest.responses["export_user"] = nest.responses["get_user_process"] = running
    done = nest.run("users", "export", "user_1", "--wait", "0", "--json")
    assert (done.exit_code, done.stdout, json.loads(done.stderr)["code"]) == (2, "", "not_finished")
