"""What operators ask and order of the mailer ends in the audit, without any address."""

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
async def test_who_looks_for_what_an_address_got_is_told_of_without_the_address(
    harness: ServiceHarness, query: Any, action: str
) -> None:
    await suppressed(harness, (ADDRESS, "bounced"))
    await harness.deliver(query(recipient=Sealed.of(ADDRESS)), caller=OPERATOR)
    (told,) = harness.recorded
    assert (told.action, told.refused_as) == (action, None)
    assert "example.com" not in told.model_dump_json()


async def test_a_lifted_suppression_is_told_by_the_mail_that_showed_it(harness: ServiceHarness) -> None:
    (delivery_id,) = await suppressed(harness, (ADDRESS, "complained"))
    lift = LiftSuppression(recipient=Sealed.of(ADDRESS))
    with pytest.raises(Refused):
        await harness.deliver(lift, caller=OPERATOR)
    await harness.deliver(lift.model_copy(update={"although_complained": True}), caller=OPERATOR)
    with pytest.raises(Refused):
        await harness.deliver(LiftSuppression(delivery_id="delivery_typed"), caller=OPERATOR)
    assert [(told.action, told.refused_as, told.resource_id) for told in harness.recorded] == [
        ("lift_suppression", "recipient_complained", delivery_id),
        ("lift_suppression", None, delivery_id),
        ("lift_suppression", "suppression_not_found", None),
    ]


async def test_who_looks_at_looks_is_not_told_of(harness: ServiceHarness) -> None:
    await harness.deliver(GetClientLooks(client_id="client_1"), caller=OPERATOR)
    assert harness.recorded == []
