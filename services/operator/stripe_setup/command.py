"""The command `nest stripe setup`: shows what an account lacks, and makes it with `--apply`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from services.operator.client import CommandError
from services.operator.doctor.command import load_environment
from services.operator.output import Data, JsonErrors, Yes, confirm, example_text, one_line_errors, plain, without_logs
from shared.networks import is_loopback_host

if TYPE_CHECKING:
    from services.operator.stripe_setup.changes import Api, Change
    from services.operator.stripe_setup.plans_file import PlansFile

    Stage = Callable[[], Awaitable[list[Change]]]

SIGNS: Final = {"unchanged": " ", "create": "+", "update": "~", "replace": "±"}
COLOURS: Final = {"create": typer.colors.GREEN, "update": typer.colors.YELLOW, "replace": typer.colors.YELLOW}
WEBHOOK_PATH: Final = "/1/webhook/stripe"
EXAMPLES: Final = (
    "nest stripe setup",
    "nest stripe setup --file plans.toml",
    "nest stripe setup --file plans.toml --apply --secret-file webhook-secret",
)


def setup(
    data: Data = Path(".nest"),
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="TOML file with products and prices; docs/operations.md.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="URL of the webhook endpoint; by default that of NEST_ISSUER.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="File for the signing secret of a new endpoint, mode 600; otherwise printed.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Make the changes; without it they are only shown.")] = False,
    yes: Yes = False,
    _json: JsonErrors = False,
) -> None:
    """Compare a Stripe account with what Nest needs, and make what is missing with --apply.

    Webhook endpoint, customer portal, products and prices of a file, and the rights of the API key. It may be repeated:
    the second time everything is unchanged. The exit code is 1 if a right is missing.
    """
    with one_line_errors():
        load_environment(data)
        if secret_file is not None and secret_file.exists():
            raise CommandError(f"{secret_file} exists: name another file, so that no secret is lost")
        with without_logs():
            code = asyncio.run(_run(file=file, url=url, secret_file=secret_file, apply=apply, yes=yes))
    raise typer.Exit(code)


async def _run(*, file: Path | None, url: str | None, secret_file: Path | None, apply: bool, yes: bool) -> int:
    from services.billing.settings import BillingSettings  # noqa: PLC0415 -- would slow down `nest --help`
    from services.billing.stripe_api.calls import StripeRefused, Timeouts, open_calls  # noqa: PLC0415
    from services.operator.stripe_setup.plans_file import PlansFile, read_plans  # noqa: PLC0415
    from shared.messages.billing.errors import StripeUnavailable  # noqa: PLC0415
    from shared.settings import SettingsError, load  # noqa: PLC0415

    try:
        settings = load(BillingSettings)
    except SettingsError as invalid:
        raise CommandError("; ".join(str(invalid).splitlines())) from None
    plans = PlansFile() if file is None else read_plans(file)
    endpoint = url or _endpoint()
    mode = "live" if settings.stripe_livemode else "test"
    typer.echo(f"Stripe account in {mode} mode")
    async with open_calls(
        api_key=settings.stripe_api_key,
        api_base=settings.stripe_api_base,
        rate=settings.calls_per_second,
        timeouts=Timeouts(),
    ) as api:
        try:
            if await _rights_missing(api, apply=apply):
                return 1
            stages = _stages(api, plans, endpoint, settings.stripe_portal_return_url, secret_file)
            changes = [change for stage in stages for change in await stage()]
            _show(changes)
            if _is_local(endpoint):
                typer.echo(
                    f"no webhook endpoint: Stripe can't reach this machine; stripe listen --forward-to {endpoint}"
                )
            await _warn_of_leaving_plans(api, plans, frozenset(settings.stripe_products))
            if apply and any(change.apply for change in changes):
                confirm(f"Make these changes in {mode} mode?", yes=yes or mode == "test")
                await _apply(stages)
        except StripeUnavailable:
            raise CommandError("Stripe is unavailable or refuses the API key: try again, and run nest doctor") from None
        except StripeRefused as refused:
            raise CommandError(f"Stripe refuses {refused.call}: {refused}; request {refused.request_id}") from None
    return 0


async def _warn_of_leaving_plans(api: Api, plans: PlansFile, listed: frozenset[str]) -> None:
    from services.billing.catalog.models import MARK  # noqa: PLC0415
    from services.operator.stripe_setup.catalog import leaving_plans  # noqa: PLC0415

    leaving = await leaving_plans(api, plans, listed)
    if leaving:
        names = ", ".join(f"{plain(product.name)} ({product.id})" for product in leaving)
        typer.secho(f"! list_plans will no longer show {names}", fg=typer.colors.YELLOW)
        typer.echo(
            f"  To keep them, set their metadata {MARK}=true in Stripe, or list all plans in NEST_STRIPE_PRODUCTS."
        )


async def _rights_missing(api: Api, *, apply: bool) -> bool:
    """Whether the key lacks a right; names each one."""
    from services.billing.stripe_api.rights import RIGHTS, SETUP_RIGHTS  # noqa: PLC0415
    from services.operator.stripe_setup.rights import missing_rights  # noqa: PLC0415

    lacking = await missing_rights(api, (*RIGHTS, *(SETUP_RIGHTS if apply else ())))
    for right in lacking:
        typer.secho(f"! right missing: {right.resource}: {right.access} ({right.purpose})", fg=typer.colors.RED)
    return bool(lacking)


def _stages(api: Api, plans: PlansFile, url: str, return_url: str, secret_file: Path | None) -> list[Stage]:
    """Functions that compare one kind of object each, in the order in which they need each other's IDs."""
    from services.billing.events.handlers import NEEDED_EVENTS  # noqa: PLC0415
    from services.operator.stripe_setup.catalog import Catalog  # noqa: PLC0415
    from services.operator.stripe_setup.portal import plan_portal  # noqa: PLC0415
    from services.operator.stripe_setup.webhooks import plan_endpoint  # noqa: PLC0415

    catalog = Catalog(api, plans)
    stages: list[Stage] = [
        catalog.plan_features,
        catalog.plan_products,
        catalog.plan_attachments,
        catalog.plan_prices,
        lambda: plan_portal(api, return_url, catalog.products, catalog.prices),
    ]
    if not _is_local(url):
        stages.append(lambda: plan_endpoint(api, url, NEEDED_EVENTS, lambda secret: _keep_secret(secret, secret_file)))
    return stages


async def _apply(stages: Sequence[Stage]) -> None:
    """Make the changes; each stage is planned again, with the IDs of the objects that the stages before have made."""
    for stage in stages:
        for change in await stage():
            if change.apply is not None:
                await change.apply()
                typer.echo(f"done: {change.kind} {plain(change.name)}")


def _endpoint() -> str:
    issuer = os.environ.get("NEST_ISSUER", "").rstrip("/")
    if not issuer:
        raise CommandError("where is the gateway? Set NEST_ISSUER, or give --url of the webhook endpoint")
    return issuer + WEBHOOK_PATH


def _is_local(url: str) -> bool:
    """Whether a URL leads to this machine, so that Stripe would refuse it as an endpoint."""
    return is_loopback_host(urlsplit(url).hostname or "")


def _keep_secret(secret: str, path: Path | None) -> None:
    """Write the signing secret to a new file that only its owner can read, or print it. It is shown only once."""
    if path is None:
        typer.echo(f"NEST_STRIPE_WEBHOOK_SECRETS={secret}")
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secret + "\n")
    typer.echo(f"signing secret written to {path}: add it to NEST_STRIPE_WEBHOOK_SECRETS")


def _show(changes: list[Change]) -> None:
    for change in changes:
        line = f"{SIGNS[change.action]} {change.action:<9} {change.kind}: {plain(change.name)}"
        typer.secho(line, fg=COLOURS.get(change.action))
        for diff in change.diffs:
            typer.echo(f"    {diff.field}: {_text(diff.present)} -> {_text(diff.wanted)}")
    counts = {action: sum(change.action == action for change in changes) for action in SIGNS}
    typer.echo(", ".join(f"{number} {action}" for action, number in counts.items() if number))


def _text(value: Any) -> str:
    return plain(json.dumps(value, ensure_ascii=False))


def epilog() -> str:
    """The examples at the end of the help text."""
    return example_text(*EXAMPLES)
