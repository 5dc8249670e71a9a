"""From which domains do our mails come, and do their DNS records say so? The settings' sender, and those of clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import dns.asyncresolver
from pymongo.errors import PyMongoError

from services.mailer.branding.store import ClientBrandings
from services.operator.doctor.findings import Finding, warning
from services.operator.doctor.mail import domain_of, lives_in_the_world, look_at_mail_records
from services.operator.doctor.names import RECORDS
from shared.mongo import Database


async def look_at_senders(
    settings: Any,
    database: Database | None,
    selectors: Sequence[str],
    resolver: dns.asyncresolver.Resolver | None = None,
) -> AsyncIterator[Finding]:
    """The records of every domain that mails come from; of none while they stay on this machine.

    Args:
        settings: the mailer's.
        database: the mailer's; None where it is not known.
        selectors: under which the mail provider has published DKIM keys.
        resolver: whom to ask; the machine's own by default.
    """
    senders = [settings.mail_from]
    try:
        if database is not None:
            senders += await database[ClientBrandings.COLLECTION].distinct("senderAddress")
    except PyMongoError as failure:
        # What is the matter with MongoDB is said elsewhere.
        yield warning(
            RECORDS,
            f"the senders of clients could not be read ({type(failure).__name__})",
            "look again once MongoDB answers",
        )
    domains = {domain_of(sender) for sender in senders if sender and lives_in_the_world(sender, settings.smtp_host)}
    if domains:
        async for finding in look_at_mail_records(sorted(domains), selectors, resolver):
            yield finding
