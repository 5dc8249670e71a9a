from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.auth.rate_limits import refusal_budget
from shared.bus.producer import BusDown
from shared.ids import new_message_id
from shared.messages import Caller, Message, Sealed
from shared.messages.auth.accounts import DeleteOwner
from shared.messages.auth.audit import RecordAuditEntry
from shared.messages.auth.phone import RegisterPhoneUser, VerifyPhoneCode
from shared.messages.auth.tokens import AuthenticateUser
from tests.auth.flows import CLIENT
from tests.service_harness import Refused, ServiceHarness

STRANGER = Caller(client_ip="203.0.113.7")
NEIGHBOUR = Caller(client_ip="203.0.113.200")
OTHER = Caller(client_ip="198.51.100.1")
CODE, NONCE = Sealed.of("123456"), Sealed.of("0" * 32)
REFUSED: dict[str, Message] = {
    "unknown grant type": AuthenticateUser(client_id=CLIENT, grant_type="x"),
    "unknown refresh token": AuthenticateUser(
        client_id=CLIENT, grant_type="refresh_token", refresh_token=Sealed.of("reftok_x.y")
    ),
    "unknown nonce": VerifyPhoneCode(code=CODE, nonce=NONCE),
    "unknown nonce of a registration": RegisterPhoneUser(code=CODE, nonce=NONCE, first_name="A", last_name="B"),
    "malformed owner": DeleteOwner(deletion_token=Sealed.of("x"), uuid=Sealed.of("")),
}


async def refused(harness: ServiceHarness, message: Message, caller: Caller, **options: Any) -> str:
    with pytest.raises(Refused) as refusal:
        await harness.deliver(message, caller=caller, **options)
    return refusal.value.code


async def rows(harness: ServiceHarness) -> tuple[int, int]:
    return (
        await harness.database["inbox"].count_documents({}),
        await harness.database["audit"].count_documents({}),
    )


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_beyond_the_budget_of_a_network_store_nothing(
    new_harness: Callable[..., ServiceHarness], name: str
) -> None:
    async with new_harness(limit_refusals_per_prefix="3/5m") as harness:
        inbox, audit = await rows(harness)
        codes = [await refused(harness, REFUSED[name], STRANGER) for _ in range(10)]
        assert codes[3:] == ["throttled"] * 7
        assert "throttled" not in codes[:3]
        assert await refused(harness, REFUSED[name], NEIGHBOUR) == "throttled"
        assert await rows(harness) == (inbox + 3, audit + 3)
        assert await refused(harness, REFUSED[name], OTHER) == codes[0]
        assert await refused(harness, REFUSED[name], Caller()) == codes[0]


async def test_all_kinds_of_refused_commands_share_the_budget(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(limit_refusals_per_prefix="4/5m") as harness:
        codes = [await refused(harness, message, STRANGER) for message in REFUSED.values()]
        assert [code == "throttled" for code in codes] == [False] * 4 + [True]


async def test_repeat_of_a_stored_refusal_gets_it_beyond_the_budget(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(limit_refusals_per_prefix="1/5m") as harness:
        message_id, message = new_message_id(), REFUSED["unknown grant type"]
        first = await refused(harness, message, STRANGER, id=message_id)
        assert await refused(harness, message, STRANGER) == "throttled"
        assert await refused(harness, message, STRANGER, id=message_id) == first


async def test_network_beyond_its_budget_is_served_where_nothing_is_refused(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with new_harness(limit_refusals_per_prefix="1/5m") as harness:
        for _ in range(3):
            await refused(harness, REFUSED["unknown nonce"], STRANGER)
        deleted = await harness.deliver(
            DeleteOwner(deletion_token=Sealed.of("x"), uuid=Sealed.of("00000000-0000-4000-8000-000000000000")),
            caller=STRANGER,
        )
        assert deleted["affectedRows"] == 0


async def test_user_and_internal_callers_have_no_budget(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(limit_refusals_per_prefix="1/5m") as harness:
        for caller in (Caller(kind="internal", client_ip="203.0.113.7"), Caller(kind="service")):
            codes = {await refused(harness, REFUSED["unknown grant type"], caller) for _ in range(3)}
            assert codes == {"unsupported_grant_type"}


async def test_one_entry_counts_the_refusals_of_a_network(
    new_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_budget, "MAX_NETWORKS", 2)
    async with new_harness(limit_refusals_per_prefix="1/5m") as harness:
        for caller in (STRANGER, OTHER, Caller(client_ip="192.0.2.1"), Caller(client_ip="192.0.3.1")):
            for _ in range(4):
                await refused(harness, REFUSED["unknown nonce"], caller)
        budget = harness.context.refusal_budget
        published: list[RecordAuditEntry] = []

        async def publish(message: Message) -> None:
            if not published:
                published.append(message)  # type: ignore[arg-type]
                raise BusDown("away")
            published.append(message)  # type: ignore[arg-type]

        budget._publish = publish
        await budget.record()
        await budget.record()
        sent = sorted((entry.network, entry.count) for entry in published[1:])
        assert sent == [("", 6), ("198.51.100.0/24", 3), ("203.0.113.0/24", 3)]
        for entry in published[1:]:
            await harness.deliver(entry, caller=Caller(kind="service"))
        stored = await harness.database["audit"].find({"action": "refused_orders"}).to_list()
        assert sorted((row["clientIp"] or "", row["count"], row["caller"], row["code"]) for row in stored) == [
            ("", 6, "anonymous", "throttled"),
            ("198.51.100.0/24", 3, "anonymous", "throttled"),
            ("203.0.113.0/24", 3, "anonymous", "throttled"),
        ]
        await budget.record()
        assert len(published) == 4
