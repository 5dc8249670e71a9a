"""Audit entries of operators' commands and queries to the mailer."""

from typing import Any

import pytest

from shared.messages import Caller, Sealed
from shared.messages.mailer.branding import GetClientLooks
from shared.messages.mailer.deliveries import ListDeliveries
from shared.messages.mailer.suppressions import LiftSuppression, ListSuppressions
from tests.mailer.suppressions.test_handlers import suppressed
from tests.service_harness import Refused, ServiceHarness

OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")
ADDRESS = "ada@example.com"


@pytest.mark.parametrize(
    ("query", "action"),
    [(ListDeliveries, "list_deliveries"), (ListSuppressions, "list_suppressions")],
)
async def test_search_for_an_address_is_audited_without_it(harness: ServiceHarness, query: Any, action: str) -> None:
    await suppressed(harness, (ADDRESS, "bounced"))
    await harness.deliver(query(recipient=Sealed.of(ADDRESS)), caller=OPERATOR)
    (entry,) = harness.recorded
    assert (entry.action, entry.refused_as) == (action, None)
    assert "example.com" not in entry.model_dump_json()


async def test_lifted_suppression_is_audited_with_its_delivery(harness: ServiceHarness) -> None:
    (delivery_id,) = await suppressed(harness, (ADDRESS, "complained"))
    command = LiftSuppression(recipient=Sealed.of(ADDRESS))
    with pytest.raises(Refused):
        await harness.deliver(command, caller=OPERATOR)
    await harness.deliver(command.model_copy(update={"although_complained": True}), caller=OPERATOR)
    with pytest.raises(Refused):
        await harness.deliver(LiftSuppression(delivery_id="delivery_typed"), caller=OPERATOR)
    assert [(entry.action, entry.refused_as, entry.resource_id) for entry in harness.recorded] == [
        ("lift_suppression", "recipient_complained", delivery_id),
        ("lift_suppression", None, delivery_id),
        ("lift_suppression", "suppression_not_found", None),
    ]


async def test_branding_query_is_not_audited(harness: ServiceHarness) -> None:
    await harness.deliver(GetClientLooks(client_id="client_1"), caller=OPERATOR)
    assert harness.recorded == []
