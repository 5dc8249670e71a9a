"""Pages of mails and texts: deliveries, and the suppression list."""

from __future__ import annotations

from typing import Final, get_args

from services.gateway.console.lists import Column, Filter, ListPage
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.messages.mailer.deliveries import DeliveryState, Medium
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import Cause
from shared.messages.mailer.texts import TextTemplate

TEMPLATES: Final = (*get_args(Template), *get_args(TextTemplate))
PERIOD: Final = (Filter("since", "Since (UTC)", "time"), Filter("until", "Until (UTC)", "time"))
DELIVERIES: Final = PageTable(Link("Mail", "Deliveries", "/console/deliveries"))
SUPPRESSIONS: Final = PageTable(Link("Mail", "Suppressions", "/console/suppressions"))
DELIVERY_LIST: Final = ListPage(
    title="Deliveries",
    intro="Mails and texts that Nest sent, newest first. Recipients are stored encrypted and not shown.",
    method="list_deliveries",
    entries="deliveries",
    columns=(
        Column("Ordered", "created_at", "time"),
        Column("State", "state", "state"),
        Column("Template", "template"),
        Column("Medium", "medium"),
        Column("Client", "client_id", "code", "/console/clients/{}"),
        Column("Tries", "attempts", "number"),
        Column("Server's answer", "reason", "long"),
        Column("Delivery", "id", "code"),
    ),
    filters=(
        Filter("recipient", "Address or number", hint="ada@example.com"),
        Filter("state", "State", "choice", get_args(DeliveryState)),
        Filter("template", "Template", "choice", TEMPLATES),
        Filter("medium", "Medium", "choice", get_args(Medium)),
        Filter("client_id", "Client ID", hint="client_…"),
        *PERIOD,
    ),
    empty="No mail or text was sent yet",
    empty_hint="Request a magic link, and its mail appears here.",
)
SUPPRESSION_LIST: Final = ListPage(
    title="Suppressions",
    intro="Addresses that bounced or complained, newest first. They get only mails that they request themselves. "
    "Addresses are hashed and not shown; search for one.",
    method="list_suppressions",
    entries="suppressions",
    columns=(
        Column("Since", "since", "time"),
        Column("Cause", "cause", "state"),
        Column("Template", "template"),
        Column("Provider's text", "reason", "long"),
        Column("Delivery", "delivery_id", "code"),
    ),
    filters=(
        Filter("recipient", "Address", hint="ada@example.com"),
        Filter("cause", "Cause", "choice", get_args(Cause)),
        *PERIOD,
    ),
    empty="No address is suppressed",
    empty_hint="An address appears here after a permanent bounce, or when its reader reports a mail as spam.",
    template="suppressions.html",
)


@DELIVERIES.page("/console/deliveries")
async def deliveries(visit: Visit) -> HttpResponse:
    """The deliveries."""
    return await DELIVERY_LIST.show(visit)


@SUPPRESSIONS.page("/console/suppressions")
async def suppressions(visit: Visit) -> HttpResponse:
    """The suppression list."""
    return await SUPPRESSION_LIST.show(visit)


@SUPPRESSIONS.act("/console/suppressions/lift", page=suppressions)
async def lift(visit: Visit) -> HttpResponse:
    """Remove an address, or the address of a delivery, from the suppression list."""
    await visit.call(
        "lift_suppression",
        recipient=visit.form.get("recipient", "").strip() or None,
        delivery_id=visit.form.get("delivery_id") or None,
        although_complained="although_complained" in visit.form,
    )
    return visit.done("/console/suppressions", "Mails are sent to this address again.")
