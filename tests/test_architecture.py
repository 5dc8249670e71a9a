"""Who may import whom: one rule a test, each first shown a file that breaks it."""

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SERVICES: Final = {"auth", "billing", "gateway", "mailer", "news"}
CAPABILITY_SERVICES: Final = {"auth", "billing", "mailer"}
"""Services that have one folder per capability, each with some of the files in ``ROLES``."""
ROLES: Final = {"handlers", "models", "store"}
EXTRA_FILES: Final = {
    "services/auth/accounts/account_mails.py": "handlers",
    "services/auth/accounts/api_key_upgrade.py": "store",
    "services/auth/accounts/api_keys.py": "models",
    "services/auth/accounts/hash_queue.py": "adapters",
    "services/auth/accounts/password_checks.py": "handlers",
    "services/auth/accounts/passwords.py": "adapters",
    "services/auth/audit/recorder.py": "adapters",
    "services/auth/dead_letters/erasure.py": "handlers",
    "services/auth/dead_letters/views.py": "adapters",
    "services/auth/magic_links/mail_backlog.py": "adapters",
    "services/auth/rate_limits/known_devices.py": "adapters",
    "services/auth/rate_limits/limiter.py": "adapters",
    "services/auth/rate_limits/refusal_budget.py": "adapters",
    "services/auth/rate_limits/shared_counters.py": "adapters",
    "services/auth/sessions/geoip.py": "adapters",
    "services/auth/signing_keys/key_pairs.py": "adapters",
    "services/auth/signing_keys/keyring.py": "adapters",
    "services/auth/tokens/credentials.py": "models",
    "services/auth/tokens/signer.py": "adapters",
    "services/billing/catalog/offers.py": "sync",
    "services/billing/catalog/sync.py": "sync",
    "services/billing/checkout/card_trials.py": "sync",
    "services/billing/checkout/sessions.py": "sync",
    "services/billing/customers/attribution.py": "sync",
    "services/billing/customers/provisioning.py": "sync",
    "services/billing/disputes/sync.py": "sync",
    "services/billing/entitlements/sync.py": "sync",
    "services/billing/events/pending.py": "sync",
    "services/billing/invoices/pagination.py": "sync",
    "services/billing/payments/pagination.py": "sync",
    "services/billing/payments/sync.py": "sync",
    "services/billing/plan_changes/changes.py": "sync",
    "services/billing/plan_changes/orders.py": "sync",
    "services/billing/plan_changes/rules.py": "models",
    "services/billing/runs/account_import.py": "runs",
    "services/billing/runs/comparison.py": "runs",
    "services/billing/runs/event_replay.py": "runs",
    "services/billing/runs/progress.py": "runs",
    "services/billing/runs/recheck.py": "runs",
    "services/billing/runs/steps.py": "runs",
    "services/billing/runs/verification.py": "runs",
    "services/billing/stripe_api/account.py": "stripe_api",
    "services/billing/stripe_api/call_queue.py": "stripe_api",
    "services/billing/stripe_api/catalog_models.py": "models",
    "services/billing/stripe_api/calls.py": "stripe_api",
    "services/billing/stripe_api/customer_calls.py": "stripe_api",
    "services/billing/stripe_api/deadlines.py": "stripe_api",
    "services/billing/stripe_api/families.py": "stripe_api",
    "services/billing/stripe_api/checkout_sessions.py": "stripe_api",
    "services/billing/stripe_api/idempotent_create.py": "stripe_api",
    "services/billing/stripe_api/lists.py": "stripe_api",
    "services/billing/stripe_api/parsing.py": "stripe_api",
    "services/billing/stripe_api/products.py": "stripe_api",
    "services/billing/stripe_api/plan_change_calls.py": "stripe_api",
    "services/billing/stripe_api/payment_models.py": "models",
    "services/billing/stripe_api/payment_parsing.py": "stripe_api",
    "services/billing/stripe_api/plan_change_models.py": "models",
    "services/billing/stripe_api/reschedule.py": "stripe_api",
    "services/billing/stripe_api/rights.py": "stripe_api",
    "services/billing/stripe_api/subscription_changes.py": "stripe_api",
    "services/billing/stripe_api/token_bucket.py": "stripe_api",
    "services/billing/subscriptions/cancellation.py": "sync",
    "services/billing/subscriptions/duplicates.py": "models",
    "services/billing/subscriptions/mails.py": "sync",
    "services/billing/subscriptions/products.py": "sync",
    "services/billing/subscriptions/portal.py": "adapters",
    "services/billing/subscriptions/refunds.py": "sync",
    "services/billing/subscriptions/renewals.py": "sync",
    "services/billing/subscriptions/sync.py": "sync",
    "services/billing/subscriptions/views.py": "models",
    "services/billing/trials/eligibility.py": "sync",
    "services/billing/trials/provisioning.py": "sync",
    "services/mailer/branding/colours.py": "models",
    "services/mailer/consents/mailchimp.py": "adapters",
    "services/mailer/consents/unsubscribe_links.py": "adapters",
    "services/mailer/mails/addresses.py": "models",
    "services/mailer/mails/app_links.py": "adapters",
    "services/mailer/mails/mime.py": "adapters",
    "services/mailer/texts/providers.py": "adapters",
    "services/mailer/texts/twilio.py": "adapters",
    "services/mailer/webhooks/deliveries.py": "handlers",
    "services/mailer/webhooks/destinations.py": "adapters",
    "services/mailer/webhooks/events.py": "models",
    "services/mailer/webhooks/http_client.py": "adapters",
    "services/mailer/webhooks/signatures.py": "models",
    "services/mailer/webhooks/wanted_events.py": "adapters",
}
"""Files of capability folders beside handlers, models and store, with the role whose rules they follow."""
STARTERS: Final = ("services/cli.py", "services/embedded/", "services/operator/")
"""What starts services may know them all, and the brokers and databases beside them."""


@dataclass(frozen=True, eq=False)
class Source:
    """A file of the project."""

    path: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> "Source":
        return cls(path, ast.parse(text, path))

    @property
    def service(self) -> str | None:
        """The service it belongs to."""
        parts = self.path.split("/")
        return parts[1] if parts[0] == "services" and parts[1] in SERVICES else None

    @property
    def part(self) -> str:
        """Its role in its service: ``models`` for ``models.py``, ``users/models.py`` and all files in ``models/``."""
        if not self.service:
            return ""
        folder, *files = self.path.removesuffix(".py").split("/")[2:]
        if self.path in EXTRA_FILES:
            return EXTRA_FILES[self.path]
        return files[-1] if folder not in ROLES and files and files[-1] in ROLES else folder

    @property
    def capability(self) -> str:
        """The folder of its capability, with a slash at the end; empty outside of one."""
        parts = self.path.split("/")
        inside = self.service in CAPABILITY_SERVICES and len(parts) > 3 and parts[2] not in ROLES
        folder = "/".join(parts[:3]) + "/"
        return folder if inside and folder in capabilities() else ""

    @cache  # noqa: B019 -- sources live as long as the tests
    def imports(self) -> tuple[str, ...]:
        """Every module it imports; ``from a import b`` may mean ``a.b``, so both are told."""
        found: list[str] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.extend(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.path}:{node.lineno}: write imports out, from the top"
                found.extend((str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)))
        return tuple(found)

    def imports_any(self, *modules: str) -> list[str]:
        """Those imports that are one of these modules or within one."""
        return [name for name in self.imports() if any(f"{name}.".startswith(f"{module}.") for module in modules)]

    def is_in(self, *places: str) -> bool:
        """Whether it is one of these files, or in one of these folders (which end with a slash)."""
        return any(self.path.startswith(place) if place.endswith("/") else self.path == place for place in places)


Rule = Callable[[Source], list[str]]
"""What is wrong with a file, in words; empty when nothing is."""


@cache
def sources() -> list[Source]:
    files = [path for folder in ("services", "shared") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source.of(path.relative_to(ROOT).as_posix(), path.read_text()) for path in files]


@cache
def capabilities() -> frozenset[str]:
    """Folders of services that have one of the standard files."""
    return frozenset(
        path.parent.relative_to(ROOT).as_posix() + "/"
        for service in CAPABILITY_SERVICES
        for role in ROLES
        for path in (ROOT / "services" / service).glob(f"*/{role}.py")
        if path.parent.name not in ROLES
    )


def holds(rule: Rule, *, breaks: tuple[str, str], advice: str) -> None:
    """The rule sees the file that breaks it, and none in the project does."""
    assert rule(Source.of(*breaks)), "the rule can't fail"
    wrong = [f"{source.path}: {complaint}" for source in sources() for complaint in rule(source)]
    assert not wrong, "\n".join([advice, *wrong])


def only_in(*places: str, modules: tuple[str, ...]) -> Rule:
    """These modules are imported in these places alone."""
    return lambda source: [] if source.is_in(*places) else source.imports_any(*modules)


def test_the_project_is_found() -> None:
    assert {source.service for source in sources()} == {*SERVICES, None}
    assert len(sources()) > 50


def test_shared_knows_no_service() -> None:
    holds(
        lambda source: source.imports_any("services", "tests") if source.is_in("shared/") else [],
        breaks=("shared/bus/work.py", "def late():\n    from services.auth import errors"),
        advice="shared/ serves every service: hand over what it needs as an argument instead",
    )


def test_messages_need_pydantic_and_the_standard_library_alone() -> None:
    def rule(source: Source) -> list[str]:
        allowed = {*sys.stdlib_module_names, "pydantic", "pydantic_core"}
        return [
            name
            for name in source.imports()
            if source.is_in("shared/messages/")
            and name.partition(".")[0] not in allowed
            and not f"{name}.".startswith(("shared.messages.", "shared.errors."))
        ]

    holds(
        rule,
        breaks=("shared/messages/auth/users.py", "from shared.bus.work import Work"),
        advice="contracts are read by everybody: keep what does something elsewhere",
    )


def test_a_service_knows_no_other_service() -> None:
    def rule(source: Source) -> list[str]:
        own = f"services.{source.service}."
        return [
            name
            for name in source.imports_any("services", "tests")
            if source.service and name != "services" and not f"{name}.".startswith(own)
        ]

    holds(
        rule,
        breaks=("services/billing/handlers.py", "from services.auth.models import User"),
        advice="services talk by messages: put what both need into shared/messages and send one",
    )


def test_capability_folders_have_the_same_files() -> None:
    def rule(source: Source) -> list[str]:
        if not source.capability or source.path in EXTRA_FILES:
            return []
        name = source.path.removeprefix(source.capability).removesuffix(".py")
        return [] if name in {*ROLES, "__init__"} else ["is no handlers.py, models.py or store.py"]

    assert {path for path in EXTRA_FILES if not (ROOT / path).is_file()} == set()
    holds(
        rule,
        breaks=("services/auth/tokens/helpers.py", ""),
        advice="merge it into handlers.py, models.py or store.py, or declare it in EXTRA_FILES with its role",
    )


def test_only_the_app_reads_settings() -> None:
    def rule(source: Source) -> list[str]:
        return (
            [] if source.part in {"app", "settings", ""} else source.imports_any(f"services.{source.service}.settings")
        )

    holds(
        rule,
        breaks=("services/auth/magic_links/handlers.py", "from services.auth.settings import AuthSettings"),
        advice="give it the value when app.py builds it",
    )


def test_the_environment_is_read_by_settings_alone() -> None:
    def rule(source: Source) -> list[str]:
        reads = [node for node in ast.walk(source.tree) if isinstance(node, ast.Attribute) and node.attr == "environ"]
        allowed = (*STARTERS, "shared/variables.py", "shared/fault_points.py")
        return [] if source.is_in(*allowed) else [f"line {node.lineno} reads os.environ" for node in reads]

    holds(
        rule,
        breaks=("services/mailer/smtp/smtp_client.py", "import os\nhost = os.environ['SMTP_HOST']"),
        advice="declare it in the service's settings.py, where a missing one stops the start by name",
    )


def test_nothing_but_the_app_knows_the_handlers() -> None:
    def rule(source: Source) -> list[str]:
        service = f"services.{source.service}"
        own = [name for name in source.imports_any(service) if "handlers" in name.split(".")[2:4]]
        known = own if source.part not in {"app", "handlers"} else []
        return known + (source.imports_any(f"{service}.app") if source.part != "app" else [])

    holds(
        lambda source: rule(source) if source.service else [],
        breaks=("services/news/store.py", "from services.news.handlers import News"),
        advice="the way goes app -> handlers -> models, store, adapters -> errors, never back",
    )


def test_a_store_needs_models_and_errors_alone() -> None:
    def rule(source: Source) -> list[str]:
        if source.part != "store":
            return []
        inner = source.imports_any(f"services.{source.service}")
        return [name for name in inner if _role(name) not in {"store", "models", "errors", ""}]

    for broken in (
        ("services/billing/trials/store.py", "from services.billing.stripe_api.account import Stripe"),
        ("services/auth/tokens/store.py", "from services.auth.tokens.signer import TokenSigner"),
    ):
        holds(
            rule,
            breaks=broken,
            advice="a store turns documents into models and back; calls to others belong into a handler or an adapter",
        )


def test_stores_declare_their_indexes() -> None:
    def rule(source: Source) -> list[str]:
        wrong = []
        for node in ast.walk(source.tree):
            if source.part == "store" and isinstance(node, ast.ClassDef):
                assigned = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
                names = {target.id for target in assigned if isinstance(target, ast.Name)}
                if "COLLECTION" in names and "INDEXES" not in names:
                    wrong.append(f"{node.name} declares COLLECTION but not INDEXES")
        return wrong

    holds(
        rule,
        breaks=("services/auth/users/store.py", 'class Users:\n    COLLECTION: Final = "users"'),
        advice="declare INDEXES: Final = (), if there are none, and list the store in INDEXES of app.py",
    )


def test_models_need_models_and_errors_alone() -> None:
    def rule(source: Source) -> list[str]:
        if source.part != "models":
            return []
        allowed = (
            *("shared.documents", "shared.email_addresses", "shared.errors", "shared.ids", "shared.messages"),
            *("shared.money", "shared.networks", "shared.phone_numbers"),
        )
        own = source.imports_any(f"services.{source.service}")
        other = source.imports_any("shared")
        return [name for name in own if _role(name) not in {"models", "errors", ""}] + [
            name for name in other if name != "shared" and not _within(name, allowed)
        ]

    for broken in (
        ("services/news/models.py", "from shared.mongo import Document"),
        ("services/auth/users/models.py", "from services.auth.users.store import Users"),
    ):
        holds(rule, breaks=broken, advice="models decide; give them what they decide on")


def test_models_do_no_io_and_know_no_clock() -> None:
    drivers = (
        "pymongo",
        "bson",
        "faststream",
        "aiokafka",
        "stripe",
        "jwt",
        "httpx",
        "aiosmtplib",
        "structlog",
    )
    doors = ("asyncio", "socket", "ssl", "subprocess", "threading", "time", "os", "pathlib", "urllib.request", "http")
    clocks = {"now", "utcnow", "today"}

    def rule(source: Source) -> list[str]:
        if source.part != "models":
            return []
        wrong = source.imports_any(*drivers, *doors)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AsyncFunctionDef):
                wrong.append(f"line {node.lineno}: {node.name} is async")
            elif isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Attribute) and called.attr in clocks and isinstance(called.value, ast.Name):
                    wrong.append(f"line {node.lineno}: {called.value.id}.{called.attr}() asks a clock")
                if isinstance(called, ast.Name) and called.id == "open":
                    wrong.append(f"line {node.lineno}: open() is I/O")
        return wrong

    advice = "time comes in as an argument (at=work.now), everything else through the handler"
    for broken in (
        "import time",
        "from pymongo import IndexModel",
        "from datetime import datetime, UTC\nmade = datetime.now(UTC)",
        "async def decide(): ...",
        "text = open('x')",
    ):
        holds(rule, breaks=("services/auth/users/models.py", broken), advice=advice)


def test_errors_know_nothing_of_their_service() -> None:
    holds(
        lambda source: source.imports_any("services") if source.part == "errors" else [],
        breaks=("services/billing/errors.py", "from services.billing.trials.models import Trial"),
        advice="a refusal carries plain facts in its meta",
    )


def test_mongodb_is_spoken_to_in_stores_and_in_shared() -> None:
    rule = only_in(
        "shared/mongo.py",
        "shared/mongo_spans.py",
        "shared/mongo_urls.py",
        "shared/pymongo_patch.py",
        "shared/database_version.py",
        "shared/migrations.py",
        "shared/indexes.py",
        "shared/paging.py",
        "shared/bus/inbox.py",
        "shared/bus/bulk_writes.py",
        "shared/bus/timers.py",
        "shared/service.py",
        *STARTERS,
        modules=("pymongo", "bson", "motor"),
    )
    holds(
        lambda source: [] if source.part == "store" else rule(source),
        breaks=("services/auth/users/handlers.py", "import pymongo"),
        advice="queries and indexes belong into the service's store",
    )


def test_kafka_is_spoken_to_in_shared_alone() -> None:
    holds(
        only_in(
            "shared/bus/access.py",
            "shared/bus/consumer.py",
            "shared/dead_letters/reader.py",
            "shared/dead_letters/queue.py",
            "shared/bus/aiokafka_patch.py",
            "shared/bus/connection_backoff.py",
            "shared/bus/fetch_sessions.py",
            "shared/bus/fetcher.py",
            "shared/bus/consumer_lag.py",
            "shared/bus/group_member.py",
            "shared/bus/kafka_connection.py",
            "shared/bus/keyed_executor.py",
            "shared/bus/offset_gaps.py",
            "shared/bus/oldest_message.py",
            "shared/bus/outage_notices.py",
            "shared/bus/partition_pauses.py",
            "shared/bus/producer.py",
            "shared/bus/sent_messages.py",
            "shared/startup.py",
            "shared/bus/topic_reader.py",
            "shared/bus/topics.py",
            "shared/bus/watchdog.py",
            *STARTERS,
            modules=("faststream", "aiokafka"),
        ),
        breaks=("services/gateway/rpc_client.py", "from aiokafka import AIOKafkaProducer"),
        advice="delivery is solved once: publish through the work, shared.bus.producer or shared.bus.topic_reader",
    )


def test_stripe_is_called_from_one_file() -> None:
    holds(
        only_in("services/billing/stripe_api/calls.py", "services/gateway/webhooks.py", modules=("stripe",)),
        breaks=("services/billing/trials/handlers.py", "from stripe import StripeClient"),
        advice="call over services/billing/stripe_api/calls.py, in an adapter that takes and gives our own models",
    )


def test_billing_has_layers() -> None:
    layers = {
        "stripe_api": 0,
        "models": 1,
        "store": 2,
        "metrics": 3,
        "context": 3,
        "sync": 4,
        "runs": 5,
        "handlers": 6,
        "app": 7,
        "settings": 7,
    }

    def rule(source: Source) -> list[str]:
        own = "stripe_api" if source.is_in("services/billing/stripe_api/") else source.part
        return [
            name
            for name in source.imports_any("services.billing")
            if source.service == "billing" and own != "__init__" and _above(name, layers, layers[own])
        ]

    for broken in (
        ("services/billing/stripe_api/account.py", "from services.billing.trials.models import Trial"),
        ("services/billing/context.py", "from services.billing.payments.sync import sync_payment"),
        ("services/billing/trials/provisioning.py", "from services.billing.runs.steps import Step"),
    ):
        holds(
            rule,
            breaks=broken,
            advice="imports go app -> handlers -> runs -> sync -> context -> store -> models -> stripe_api, never back",
        )


def _above(module: str, layers: dict[str, int], own: int) -> bool:
    """Whether a module of billing that an import names is in a layer above this one."""
    role = "stripe_api" if module.startswith("services.billing.stripe_api") else _role(module)
    return layers.get(role, 0) > own


def test_the_stripe_double_imports_nothing_else_of_nest() -> None:
    def rule(source: Source) -> list[str]:
        names = source.imports_any("services", "shared", "tests") if source.is_in("services/stripe_double/") else []
        # The look of pages and of the amounts on them has no influence on Stripe's objects.
        allowed = ("services.stripe_double", "shared.pages", "shared.money")
        return [name for name in names if name not in {"services", "shared"} and not _within(name, allowed)]

    for broken in ("from services.billing.subscriptions.models import Subscription", "from shared.ids import new_id"):
        holds(
            rule,
            breaks=("services/stripe_double/subscriptions.py", broken),
            advice="the double is a program of its own: what it shared with Nest would not test Nest",
        )


def test_only_the_embedded_mode_imports_the_stripe_double() -> None:
    places = ("services/stripe_double/", "services/embedded/", "services/cli.py")
    holds(
        only_in(*places, modules=("services.stripe_double",)),
        breaks=("services/billing/stripe_api/calls.py", "from services.stripe_double import API_VERSION"),
        advice="the production image has no Stripe double: configure NEST_STRIPE_API_BASE instead",
    )


def test_twilio_is_called_by_the_mailer_alone() -> None:
    holds(
        only_in("services/mailer/app.py", modules=("services.mailer.texts.twilio",)),
        breaks=("services/auth/phone/handlers.py", "from services.mailer.texts.twilio import Twilio"),
        advice="publish shared.messages.mailer.texts.SendText: texts are the mailer's",
    )


def test_tokens_are_made_and_checked_where_the_keys_are() -> None:
    allowed = (
        "services/auth/signing_keys/key_pairs.py",
        "services/auth/signing_keys/keyring.py",
        "services/auth/tokens/signer.py",
        "services/gateway/authentication.py",
        "services/gateway/auth_topics.py",
    )
    holds(
        only_in(*allowed, modules=("jwt",)),
        breaks=("services/gateway/endpoint.py", "import jwt"),
        advice="ask services/auth/tokens/signer.py or services/gateway/authentication.py",
    )


def test_http_is_the_gateways_business() -> None:
    holds(
        only_in(
            "services/gateway/",
            "services/stripe_double/",
            "shared/health.py",
            "shared/uvicorn_server.py",
            *STARTERS,
            modules=("starlette", "uvicorn", "fastapi"),
        ),
        breaks=("services/auth/users/handlers.py", "from starlette.exceptions import HTTPException"),
        advice="refuse in our words (shared/errors.py); the gateway alone knows HTTP",
    )


def test_only_the_wiring_of_the_gateway_knows_the_console() -> None:
    holds(
        only_in("services/gateway/console/", "services/gateway/app.py", modules=("services.gateway.console",)),
        breaks=("services/gateway/endpoint.py", "from services.gateway.console.pages import Visit"),
        advice="the console is a caller of the methods: what both need belongs into the gateway's own files",
    )


def test_the_gateway_owns_no_state() -> None:
    holds(
        lambda source: (
            source.imports_any("shared.mongo", "shared.bus.work", "shared.batch_loader")
            + [f"{source.part} has no place here" for part in ("store", "models") if source.part == part]
            if source.service == "gateway"
            else []
        ),
        breaks=("services/gateway/store.py", "from shared.mongo import Collection"),
        advice="what must be remembered belongs to a service behind a message",
    )


def _role(module: str) -> str:
    """The role of the module that an import names; empty for a folder, whose files the import names beside it."""
    parts = module.split(".")
    candidates = [
        "/".join(parts[:length]) + ".py"
        for length in range(3, len(parts) + 1)
        if (ROOT / "/".join(parts[:length])).with_suffix(".py").is_file()
    ]
    if candidates:
        return Source.of(candidates[0], "").part
    return parts[2] if len(parts) > 2 and not (ROOT / "/".join(parts[:3])).is_dir() else ""


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)
