"""Calls to Stripe that preview and make changes of a subscription's prices and quantities."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from services.billing.stripe_api.calls import Calls
from services.billing.stripe_api.parsing import PLANNED_BY_NEST, Json, parse_time
from services.billing.stripe_api.plan_change_models import InvoicePreview, ItemChange, Proration


class PlanChangeCalls:
    """The calls to a Stripe account that change what a subscription consists of."""

    calls: Calls

    async def preview_items(
        self, subscription_id: str, change: ItemChange, *, proration: Proration, at: datetime | None = None
    ) -> InvoicePreview:
        """The invoice that a change makes at once, or the next one if it makes none.

        ``at`` is the time of the change for prorations, in whole seconds
        (https://docs.stripe.com/api/invoices/create_preview).

        Raises:
            StripeRefused: Stripe would refuse the change.
        """
        details: Json = {"items": [{"id": change.item_id, **change.params}], "proration_behavior": proration}
        if at is not None:
            details["proration_date"] = int(at.timestamp())
        params = {"subscription": subscription_id, "subscription_details": details}
        return _parse_preview(await self.calls.post("preview_change", "/v1/invoices/create_preview", params))

    async def change_items(
        self,
        subscription_id: str,
        change: ItemChange,
        *,
        proration: Proration,
        at: datetime | None,
        pending: bool,
        key: str,
    ) -> None:
        """Change an item now.

        With ``pending`` the change takes effect when its invoice is paid, and is dropped if that does not happen within
        23 hours. Stripe supports this for charged customers only.

        Raises:
            KeySpent: the idempotency key can no longer change it; look whether it was changed.
            StripeRefused: Stripe rejected the request.
        """
        params: Json = {"items": [{"id": change.item_id, **change.params}], "proration_behavior": proration}
        if at is not None:
            params["proration_date"] = int(at.timestamp())
        if pending:
            params["payment_behavior"] = "pending_if_incomplete"
        await self.calls.post("change_items", f"/v1/subscriptions/{quote(subscription_id, safe='')}", params, key=key)

    async def schedule_items(
        self,
        subscription_id: str,
        change: ItemChange,
        interval: tuple[str, int],
        *,
        schedule_id: str | None,
        key: str,
    ) -> None:
        """Change an item at the end of the period, by a schedule that is released one ``interval`` later.

        ``schedule_id`` is that of the subscription, whose later phases are replaced; None to create one
        (https://docs.stripe.com/billing/subscriptions/subscription-schedules/use-cases#downgrading-subscriptions).

        Raises:
            KeySpent, StripeRefused: as for ``change_items``.
        """
        path = "/v1/subscription_schedules"
        if schedule_id is None:
            origin = {"from_subscription": subscription_id}
            schedule = await self.calls.post("create_schedule", path, origin, key=f"{key}:schedule")
        else:
            schedule = await self.calls.get("schedule", f"{path}/{quote(schedule_id, safe='')}", {})
        began = schedule["current_phase"]["start_date"]
        present: Json = next(phase for phase in schedule["phases"] if phase["start_date"] == began)
        items = [_phase_item(item) for item in present["items"]]
        later = [change.params if item["price"] == change.old_price_id else item for item in items]
        params = {
            "end_behavior": "release",
            "metadata": {PLANNED_BY_NEST: "1"},
            "proration_behavior": "none",
            "phases": [
                {"items": items, "start_date": present["start_date"], "end_date": present["end_date"]},
                {
                    "items": later,
                    "duration": {"interval": interval[0], "interval_count": interval[1]},
                    "proration_behavior": "none",
                },
            ],
        }
        await self.calls.post("plan_change", f"{path}/{quote(schedule['id'], safe='')}", params, key=key)

    async def waits_for_bank(self, invoice_id: str) -> bool:
        """Whether the bank wants the payment of an invoice confirmed by the customer."""
        params = {"invoice": invoice_id, "expand": ["data.payment.payment_intent"]}
        pages = self.calls.pages("invoice_payments", "/v1/invoice_payments", params)
        intents: list[Any] = [each["payment"].get("payment_intent") async for each in pages]
        return any(isinstance(intent, dict) and intent["status"] == "requires_action" for intent in intents)


def _phase_item(item: Json) -> Json:
    price = item["price"] if isinstance(item["price"], str) else item["price"]["id"]
    return {"price": price} | ({} if item.get("quantity") is None else {"quantity": item["quantity"]})


def _parse_preview(json: Json) -> InvoicePreview:
    lines: list[Json] = json["lines"]["data"]
    prorations = [line for line in lines if _is_proration(line)]
    return InvoicePreview(
        currency=json["currency"],
        due=json["amount_due"],
        credit=-sum(line["amount"] for line in prorations if line["amount"] < 0),
        prorated=bool(prorations),
        recurring=sum(line["amount"] for line in lines if not _is_proration(line)),
        total=json["total"],
        period_end=parse_time(max((line["period"]["end"] for line in lines), default=json["period_end"])),
    )


def _is_proration(line: Json) -> bool:
    parent: Json = line["parent"] or {}
    details = [parent.get("subscription_item_details"), parent.get("invoice_item_details")]
    return any(each is not None and each["proration"] for each in details)
