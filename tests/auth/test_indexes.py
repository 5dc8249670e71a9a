from datetime import timedelta

from services.auth.app import INDEXES
from shared.messages.auth.audit import ListAuditEntries
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.users import EnsureUser, GetUser
from tests.auth.flows import ADDRESS, logged_in, ordered_code, redemption, refresh, refusal
from tests.service_harness import ServiceHarness

PEOPLE = 20
LOGINS = {"clients", "users", "identifiers", "authorizations", "access_tokens", "refresh_tokens", "audit"}
"""What logging in and staying logged in reads and writes."""


async def test_every_read_and_write_finds_its_documents_by_an_index(harness: ServiceHarness) -> None:
    for number in range(PEOPLE):
        await logged_in(harness, identifier_value=f"person{number}@example.com")
    code = await ordered_code(harness)
    await harness.database.command("profile", 2)
    try:
        answer = await harness.deliver(redemption(code))
        await harness.deliver(GetUser(user_id=answer["user_id"]))
        await harness.deliver(ListAuditEntries(user_id=answer["user_id"]))
        await harness.deliver(EnsureUser(reference="r", email=ADDRESS))
        await harness.deliver(ListSessions(user_id=answer["user_id"]))
        await harness.deliver(refresh(answer["refresh_token"]))
        harness.now += timedelta(minutes=1)
        await refusal(harness, refresh(answer["refresh_token"]))
        await harness.deliver(RevokeSessions(user_id=answer["user_id"]))
    finally:
        await harness.database.command("profile", 0)
        profiled = (
            await harness.database["system.profile"].find({"op": {"$in": ["query", "update", "remove"]}}).to_list()
        )
        await harness.database.drop_collection("system.profile")

    spaces = {f"{harness.database.name}.{name}" for name in INDEXES}
    seen = [operation for operation in profiled if operation["ns"] in spaces]
    assert {operation["ns"].rpartition(".")[2] for operation in seen} >= LOGINS
    for operation in seen:
        assert "COLLSCAN" not in operation["planSummary"], operation
        # Nothing is read to be thrown away.
        found = operation.get("nreturned", operation.get("nMatched", 0))
        assert operation["docsExamined"] <= found, operation
