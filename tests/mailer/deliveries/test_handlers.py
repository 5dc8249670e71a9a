from datetime import timedelta
from typing import Any

import pytest

from shared.messages import Sealed
from shared.messages.mailer.deliveries import ListDeliveries
from tests.mailer.mails.test_handlers import mail_command
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import Refused, ServiceHarness

ORDER_IDS = [f"{number:032x}" for number in range(3)]


async def send_three(harness: ServiceHarness, server: SmtpServer) -> None:
    """Send three mails a minute apart; the second fails."""
    server.answers["RCPT"] = lambda address: "550 no such user" if address.startswith("bob") else None
    for order_id, to in zip(ORDER_IDS, ("Ada@example.com", "bob@example.com", "ada@example.com"), strict=True):
        harness.now += timedelta(minutes=1)
        await harness.deliver(mail_command(to, client_id=f"client_{to[:3].lower()}"), id=order_id)


async def listed_order_ids(harness: ServiceHarness, **fields: Any) -> list[str]:
    view = await harness.deliver(ListDeliveries(**fields))
    return [each["message_id"].removeprefix("<").partition("@")[0] for each in view["deliveries"]]


async def test_deliveries_are_listed_newest_first_without_recipients(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await send_three(harness, server)
    view = await harness.deliver(ListDeliveries())
    assert [each["state"] for each in view["deliveries"]] == ["handed_over", "failed", "handed_over"]
    assert view["deliveries"][1]["reason"] == "RCPT: 550 no such user"
    assert view["next_cursor"] is None
    assert "example.com" not in str(view).lower()


async def test_deliveries_are_filtered(harness: ServiceHarness, server: SmtpServer) -> None:
    began = harness.now
    await send_three(harness, server)
    first, second, third = ORDER_IDS
    for filters, expected in (
        ({"recipient": Sealed.of(" ADA@example.com ")}, [third, first]),
        ({"recipient": Sealed.of("nobody@example.com")}, []),
        ({"state": "failed"}, [second]),
        ({"medium": "text"}, []),
        ({"template": "welcome"}, []),
        ({"client_id": "client_bob"}, [second]),
        ({"since": began + timedelta(seconds=90), "until": began + timedelta(seconds=150)}, [second]),
    ):
        assert await listed_order_ids(harness, **filters) == expected, filters


async def test_deliveries_are_divided_into_pages(harness: ServiceHarness, server: SmtpServer) -> None:
    await send_three(harness, server)
    page = await harness.deliver(ListDeliveries(limit=2))
    assert await listed_order_ids(harness, limit=2, cursor=page["next_cursor"]) == [ORDER_IDS[0]]
    with pytest.raises(Refused, match="invalid_cursor"):
        await listed_order_ids(harness, cursor=page["deliveries"][-1]["id"])


async def test_delivery_without_later_fields_is_read(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command())
    await harness.database["deliveries"].update_one({}, {"$unset": {"channel": "", "locale": ""}})
    [delivery] = (await harness.deliver(ListDeliveries()))["deliveries"]
    assert (delivery["medium"], delivery["locale"]) == ("mail", None)
