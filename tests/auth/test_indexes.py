from datetime import timedelta

from services.auth.app import INDEXES
from shared.messages.auth.audit import ListAuditEntries
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.users import EnsureUser, GetUser
from tests.auth.flows import ADDRESS, log_in, redemption, refresh, refusal, request_code
from tests.service_harness import ServiceHarness

USERS = 20
LOGINS = {"users", "identifiers", "authorizations", "access_tokens", "refresh_tokens", "audit"}
"""Collections that logins and refreshes read and write; clients are read from memory."""


async def test_every_read_and_write_uses_an_index(harness: ServiceHarness) -> None:
    for number in range(USERS):
        await log_in(harness, identifier_value=f"person{number}@example.com")
    code = await request_code(harness)
    await harness.database.command("profile", 2)
    try:
        tokens = await harness.deliver(redemption(code))
        await harness.deliver(GetUser(user_id=tokens["user_id"]))
        await harness.deliver(ListAuditEntries(user_id=tokens["user_id"]))
        await harness.deliver(EnsureUser(reference="r", email=ADDRESS))
        await harness.deliver(ListSessions(user_id=tokens["user_id"]))
        successor = await harness.deliver(refresh(tokens["refresh_token"]))
        harness.now += timedelta(hours=1)
        await harness.deliver(refresh(tokens["refresh_token"]))
        await harness.deliver(refresh(successor["refresh_token"]))
        await refusal(harness, refresh(tokens["refresh_token"]))
        await harness.deliver(RevokeSessions(user_id=tokens["user_id"]))
    finally:
        await harness.database.command("profile", 0)
        profiled = (
            await harness.database["system.profile"].find({"op": {"$in": ["query", "update", "remove"]}}).to_list()
        )
        await harness.database.drop_collection("system.profile")

    namespaces = {f"{harness.database.name}.{name}" for name in INDEXES}
    operations = [operation for operation in profiled if operation["ns"] in namespaces]
    assert {operation["ns"].rpartition(".")[2] for operation in operations} >= LOGINS
    for operation in operations:
        assert "COLLSCAN" not in operation["planSummary"], operation
        # No document is examined and discarded.
        found = operation.get("nreturned", operation.get("nMatched", 0))
        assert operation["docsExamined"] <= found, operation
