"""Handlers of auth, collected from its capabilities."""

from typing import Final

from services.auth.account_links import handlers as account_links
from services.auth.accounts import handlers as accounts
from services.auth.application_users import handlers as application_users
from services.auth.audit import handlers as audit
from services.auth.checkouts import handlers as checkouts
from services.auth.clients import handlers as clients
from services.auth.dead_letters import handlers as dead_letters
from services.auth.entitlements import handlers as entitlements
from services.auth.magic_links import handlers as magic_links
from services.auth.partitions import handlers as partitions
from services.auth.personal_data import handlers as personal_data
from services.auth.phone import handlers as phone
from services.auth.rate_limits import handlers as rate_limits
from services.auth.sealing_keys import handlers as sealing_keys
from services.auth.sessions import handlers as sessions
from services.auth.signing_keys import handlers as signing_keys
from services.auth.tokens import handlers as tokens
from services.auth.users import handlers as users
from services.auth.webhooks import handlers as webhooks
from shared.bus.handling import handlers_in

HANDLERS: Final = handlers_in(
    account_links,
    accounts,
    application_users,
    audit,
    checkouts,
    clients,
    dead_letters,
    entitlements,
    magic_links,
    partitions,
    personal_data,
    phone,
    rate_limits,
    sealing_keys,
    sessions,
    signing_keys,
    tokens,
    users,
    webhooks,
)
"""Handlers by the message that each handles."""
