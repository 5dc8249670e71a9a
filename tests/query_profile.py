"""Profile of the queries of a database, by MongoDB's own profiler."""

from __future__ import annotations

from typing import Any, Final

from shared.mongo import Database

PROFILE_BYTES: Final = 16 << 20


class QueryProfile:
    """The operations on a database, as MongoDB executed them.

    Args:
        database: the database, which has no ``system.profile``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._profile = database["system.profile"]
        self._seen = 0

    async def start(self) -> None:
        """Record every operation from now on."""
        # The default of 1 MB holds some hundred operations.
        await self._database.create_collection("system.profile", capped=True, size=PROFILE_BYTES)
        await self._database.command("profile", 2)

    async def operations(self) -> list[dict[str, Any]]:
        """Return the operations on collections since the last call, in their order, without inserts."""
        fresh = await self._profile.find().skip(self._seen).to_list()
        self._seen += len(fresh)
        return [
            each
            for each in fresh
            # An operation without a plan is a command such as that of the profiler.
            if each["ns"] != self._profile.full_name and each["op"] != "insert" and "planSummary" in each
        ]


def flaws(operation: dict[str, Any], *, slack: int, ranges: int = 0) -> list[str]:
    """Return what is wrong with the plan of an operation.

    Args:
        operation: an operation of the profile.
        slack: index entries and documents that it may examine in vain.
        ranges: further index entries that it may examine in vain.
    """
    plan, concerned = operation["planSummary"], operation.get("nreturned", 0) + operation.get("nMatched", 0)
    found = []
    if "COLLSCAN" in plan:
        found.append("reads the whole collection")
    if operation.get("hasSortStage", False):
        found.append("sorts in memory")
    if operation["docsExamined"] > concerned + slack:
        found.append(f"examines {operation['docsExamined']} documents for {concerned}")
    if operation["keysExamined"] > concerned + slack + ranges:
        found.append(f"examines {operation['keysExamined']} index entries for {concerned}")
    return [f"{flaw}: {plan}" for flaw in found]
