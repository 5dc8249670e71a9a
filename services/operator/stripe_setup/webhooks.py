"""The webhook endpoint of a deployment: URL, pinned API version, and exactly the events that Nest handles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.billing.stripe_api.calls import API_VERSION
from services.operator.stripe_setup.changes import MARK, Api, Change, Diff, Json, differences, listed, marked

KEY: Final = "webhook"
PATH: Final = "/v1/webhook_endpoints"


async def plan_endpoint(api: Api, url: str, events: frozenset[str], keep_secret: Callable[[str], None]) -> list[Change]:
    """The changes of the webhook endpoint; ``keep_secret`` receives the signing secret of a new one.

    Stripe never changes the API version of an endpoint, and shows its secret only once. An endpoint of another version
    is disabled after a new one was created: until the gateway has the new secret, Stripe repeats the deliveries.
    """
    endpoints = await listed(api, "webhook_endpoints", PATH)
    ours = [each for each in endpoints if each["url"] == url or each is marked([each], KEY)]
    current = next((each for each in ours if each["api_version"] == API_VERSION), None)
    outdated = [each for each in ours if each is not current and each["status"] == "enabled"]
    wanted: Json = {"url": url, "enabled_events": sorted(events), "status": "enabled", "metadata": {MARK: KEY}}
    changes: list[Change] = []

    async def create() -> None:
        fields = {name: value for name, value in wanted.items() if name != "status"}
        made = await api.post("webhook_endpoint", PATH, {**fields, "api_version": API_VERSION})
        keep_secret(made["secret"])

    if current is None:
        changes.append(Change("replace" if ours else "create", "webhook endpoint", url, (), create))
    else:
        found, identifier = differences(current, wanted), current["id"]

        async def update() -> None:
            fields = {name: value for name, value in wanted.items() if name != "status"}
            await api.post("webhook_endpoint", f"{PATH}/{identifier}", {**fields, "disabled": False})

        changes.append(
            Change("update" if found else "unchanged", "webhook endpoint", url, found, update if found else None)
        )
    for endpoint in outdated:

        async def disable(path: str = f"{PATH}/{endpoint['id']}") -> None:
            await api.post("webhook_endpoint", path, {"disabled": True})

        diffs = (
            Diff("status", "enabled", "disabled"),
            Diff("api_version", endpoint["api_version"], API_VERSION),
        )
        changes.append(Change("update", "webhook endpoint", endpoint["id"], diffs, disable))
    return changes
