"""Who is told of events? Webhook endpoints made by the API, beside the double's own one."""

from services.stripe_double.account import API_VERSION, Account, Json
from services.stripe_double.errors import not_played
from services.stripe_double.events import matches
from services.stripe_double.ids import token
from services.stripe_double.listing import page
from services.stripe_double.params import Params


def create(account: Account, params: Params) -> Json:
    """POST /v1/webhook_endpoints; the answer alone shows the secret. The API version never changes after."""
    if params.text("api_version") not in {None, API_VERSION}:
        raise not_played("other API versions", "api_version")
    endpoint = account.new(
        "webhook_endpoint",
        api_version=API_VERSION,
        application=None,
        description=params.text("description"),
        enabled_events=params.texts("enabled_events"),
        metadata=params.metadata(),
        status="enabled",
        url=params.needed("url"),
        _secret=f"whsec_{token(32)}",
    )
    params.finish()
    if not endpoint["enabled_events"]:
        raise params.refuse("enabled_events", "Missing required param: enabled_events.", "parameter_missing")
    account.put(endpoint)
    return {**endpoint, "secret": endpoint["_secret"]}


def update(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/webhook_endpoints/{id}: `url`, `enabled_events`, `disabled`, `description`, `metadata`."""
    endpoint = account.get("webhook_endpoint", identifier)
    changes: Json = {
        **params.given(("url", "description")),
        "metadata": params.metadata(endpoint["metadata"]),
    }
    if "enabled_events" in params:
        changes["enabled_events"] = params.texts("enabled_events")
    if "disabled" in params:
        changes["status"] = "disabled" if params.flag("disabled") else "enabled"
    params.finish()
    return account.update(endpoint, **changes)


def delete(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/webhook_endpoints/{id}: what was still to be delivered to it is not."""
    params.finish()
    account.get("webhook_endpoint", identifier)
    account.remove("webhook_endpoint", identifier)
    for delivery in account.all("_delivery"):
        if delivery["endpoint"] == identifier:
            account.update(delivery, due=0.0)  # at once, to find that there is nobody to deliver to
    return {"id": identifier, "object": "webhook_endpoint", "deleted": True}


def listed(account: Account, params: Params) -> Json:
    """GET /v1/webhook_endpoints."""
    return page(account, params, "/v1/webhook_endpoints", account.all("webhook_endpoint"))


def wants(endpoint: Json, kind: str) -> bool:
    """Tells whether an endpoint is to be told of events of a type."""
    return endpoint["status"] == "enabled" and any(matches(name, kind) for name in endpoint["enabled_events"])
