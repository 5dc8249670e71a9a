"""Access may call what: every method with every role, against the table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway.endpoint import Access
from tests.abuse.calls import Way, ways
from tests.abuse.conftest import Target

ROLES = ("anonymous", "self", "other", "internal", "wrong internal", "empty internal", "garbage", "foreign scheme")
ADMITTED = {
    Access.ANYONE: {"anonymous", "self", "other", "internal"},
    Access.SELF_OR_INTERNAL: {"self", "internal"},
    Access.INTERNAL: {"internal"},
}
UNKNOWN = {"garbage", "foreign scheme"}
"""Access shows something that names nobody is told so, whatever they call."""
METHODS = [way for way in ways() if way.path.startswith("/1/")]


async def authorizations(target: Target, email: str) -> tuple[str, dict[str, str]]:
    """A user, and what each role shows."""
    own, other = await target.nest.log_in(email), await target.nest.log_in(f"other.{email}")
    return own["user_id"], {
        "anonymous": "",
        "self": f"bearer {own['access_token']}",
        "other": f"Bearer {other['access_token']}",
        "internal": f"internal {target.nest.internal_key}",
        "wrong internal": f"internal {'0' * len(target.nest.internal_key)}",
        "empty internal": "internal",
        "garbage": f"bearer {own['access_token'][:-4]}AAAA",
        "foreign scheme": f"basic {target.nest.internal_key}",
    }


@pytest.mark.parametrize("way", METHODS, ids=str)
async def test_only_whom_the_table_names_is_admitted(target: Target, way: Way, email: str) -> None:
    user_id, shown = await authorizations(target, email)
    fields = way.sample()
    if "user_id" in fields:
        fields["user_id"] = user_id
    # Whoever is admitted comes last: some methods end the session they are called with.
    for role in sorted(ROLES, key=lambda role: role in ADMITTED[way.who]):
        # An operator's orders would be carried out; that an empty one is read shows enough.
        body: dict[str, Any] = {} if way.who is Access.INTERNAL and role == "internal" else fields
        headers = {"authorization": shown[role]} if shown[role] else {}
        answer = await target.nest.http.post(way.path, content=json.dumps(body), headers=headers)
        code = answer.json()["code"] if answer.status_code >= 400 else ""
        if role in ADMITTED[way.who]:
            assert code not in {"access_denied", "unauthorized"}, (role, answer.text)
            assert answer.status_code < 500, (role, answer.text)
        elif role in UNKNOWN:
            assert (answer.status_code, code) == (401, "unauthorized"), (role, answer.text)
        else:
            assert (answer.status_code, code) == (403, "access_denied"), (role, answer.text)


async def test_nothing_reached_a_service_from_whom_it_must_not(target: Target, email: str) -> None:
    """Read from Kafka itself, after all of the above and whatever else has called."""
    user_id, shown = await authorizations(target, email)
    for role in ROLES:
        headers = {"authorization": shown[role]} if shown[role] else {}
        for method, body in (("get_user", {"user_id": user_id}), ("list_audit_entries", {})):
            await target.nest.http.post(f"/1/2021-10-06/{method}", json=body, headers=headers)
    by_wire = {way.message.wire: way.who for way in METHODS}
    judged = 0
    for record in await target.records():
        headers = dict(record.headers)
        who = by_wire.get(headers.get("type", b"").decode(errors="replace"))
        if who is None or who is Access.ANYONE:
            continue
        caller = json.loads(headers.get("caller", b"{}"))
        kind = caller.get("kind", "anonymous")
        if who is Access.INTERNAL:
            assert kind in {"internal", "service"}, headers
        elif kind == "user":
            assert json.loads(record.value)["user_id"] == caller["user_id"], headers
        else:
            assert kind in {"internal", "service"}, headers
        judged += 1
    assert judged


@pytest.mark.parametrize("name", ["x-user-id", "reply-to", "caller", "nest-caller", "nest_reply_to", "x-internal"])
async def test_a_header_that_claims_a_role_is_not_heard(target: Target, email: str, name: str) -> None:
    user_id, _ = await authorizations(target, email)
    claims = {name: json.dumps({"kind": "internal", "user_id": user_id}), "traceparent": "x" * 4000}
    answer = await target.nest.http.post("/1/2021-10-06/get_user", json={"user_id": user_id}, headers=claims)
    assert (answer.status_code, answer.json()["code"]) == (403, "access_denied")
