"""What stands in a delivery? The whole object as it was, or only a note that it changed."""

import json
from datetime import UTC, datetime

from services.stripe_double.account import Account, Json
from services.stripe_double.presentation import present


def snapshot(account: Account, event: Json) -> bytes:
    """Returns the body of a snapshot event, indented as Stripe sends it."""
    return json.dumps(present(account, event), indent=2, ensure_ascii=False).encode()


def thin(event: Json) -> bytes:
    """Returns the body of the thin event beside a snapshot one: no object, only where to read it.

    Its id is its own, the same each time; `snapshot_event` names the other
    (docs.stripe.com/webhooks/migrate-snapshot-to-thin-events).
    """
    subject = event["data"]["object"]
    notification = {
        "id": f"evt_test_{event['id'].removeprefix('evt_')}",
        "object": "v2.core.event",
        "type": f"v1.{event['type']}",
        "created": datetime.fromtimestamp(event["created"], UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "livemode": False,
        "context": None,
        "reason": _reason(event["request"]),
        "related_object": _related(subject) if "id" in subject else None,
        "snapshot_event": event["id"],
    }
    return json.dumps(notification, indent=2).encode()


def _reason(request: Json) -> Json | None:
    return {"type": "request", "request": request} if request["id"] is not None else None


def _related(subject: Json) -> Json:
    kind = subject["object"]
    return {"id": subject["id"], "type": kind, "url": f"/v1/{kind}s/{subject['id']}"}
