"""Access control: every method with every role, compared with the gateway's table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway.endpoint import Access
from services.gateway.methods import PATHS
from tests.abuse.calls import Operation, operations
from tests.abuse.conftest import Target

ROLES = ("anonymous", "self", "other", "internal", "wrong internal", "empty internal", "garbage", "foreign scheme")
ADMITTED = {
    Access.ANYONE: {"anonymous", "self", "other", "internal"},
    Access.SELF_OR_INTERNAL: {"self", "internal"},
    Access.INTERNAL: {"internal"},
}
UNAUTHENTICATED = {"garbage", "foreign scheme"}
"""Roles with an invalid header: refused with 401, or anonymous where the credential is in the body."""
METHODS = [operation for operation in operations() if operation.path.startswith("/1/")]


async def authorizations(target: Target, email: str) -> tuple[str, dict[str, str]]:
    """Log a user in; return its ID and each role's ``authorization`` header."""
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


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_method_admits_only_the_roles_of_the_table(target: Target, method: Operation, email: str) -> None:
    user_id, headers_by_role = await authorizations(target, email)
    fields = method.sample()
    if "user_id" in fields:
        fields["user_id"] = user_id
    admitted = ADMITTED[method.access] | (UNAUTHENTICATED if PATHS[method.path].credential_in_body else set())
    # Admitted roles come last: some methods end the session of the caller.
    for role in sorted(ROLES, key=lambda role: role in admitted):
        # Without fields, so that an admitted operator's command is refused as invalid instead of executed.
        body: dict[str, Any] = {} if method.access is Access.INTERNAL and role == "internal" else fields
        headers = {"authorization": headers_by_role[role]} if headers_by_role[role] else {}
        response = await target.nest.http.post(method.path, content=json.dumps(body), headers=headers)
        code = response.json()["code"] if response.status_code >= 400 else ""
        if role in admitted:
            assert code not in {"access_denied", "unauthorized"}, (role, response.text)
            assert response.status_code < 500, (role, response.text)
        elif role in UNAUTHENTICATED:
            assert (response.status_code, code) == (401, "unauthorized"), (role, response.text)
        else:
            assert (response.status_code, code) == (403, "access_denied"), (role, response.text)


async def test_kafka_has_no_message_of_a_caller_without_access(target: Target, email: str) -> None:
    """Checks every record of the deployment, including those of other tests."""
    user_id, headers_by_role = await authorizations(target, email)
    for role in ROLES:
        headers = {"authorization": headers_by_role[role]} if headers_by_role[role] else {}
        for method, body in (("get_user", {"user_id": user_id}), ("list_audit_entries", {})):
            await target.nest.http.post(f"/1/2021-10-06/{method}", json=body, headers=headers)
    access_by_wire = {method.message.wire: method.access for method in METHODS}
    checked = 0
    for record in await target.records():
        headers = dict(record.headers)
        access = access_by_wire.get(headers.get("type", b"").decode(errors="replace"))
        if access is None or access is Access.ANYONE:
            continue
        caller = json.loads(headers.get("caller", b"{}"))
        kind = caller.get("kind", "anonymous")
        if access is Access.SELF_OR_INTERNAL and kind == "user":
            assert json.loads(record.value)["user_id"] == caller["user_id"], headers
        else:
            assert kind in {"internal", "service"}, headers
        checked += 1
    assert checked


@pytest.mark.parametrize("name", ["x-user-id", "reply-to", "caller", "nest-caller", "nest_reply_to", "x-internal"])
async def test_header_that_claims_a_role_is_ignored(target: Target, email: str, name: str) -> None:
    user_id, _ = await authorizations(target, email)
    claims = {name: json.dumps({"kind": "internal", "user_id": user_id}), "traceparent": "x" * 4000}
    response = await target.nest.http.post("/1/2021-10-06/get_user", json={"user_id": user_id}, headers=claims)
    assert (response.status_code, response.json()["code"]) == (403, "access_denied")
