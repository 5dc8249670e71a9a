"""Client of Nest: login, tokens, calls with retries, verification of tokens and webhooks.

``Client`` and ``AsyncClient`` have the methods of Nest, ``Session`` and ``AsyncSession`` those of one user.
``nest_client.errors`` has one class per error code, ``nest_client.models`` the types of requests and responses, and
``nest_client.webhook_events`` the types of the events that webhooks carry.
"""

from nest_client import errors, models, webhook_events
from nest_client.caller import UNSET
from nest_client.client import AsyncClient, AsyncSession, Client, Session
from nest_client.core import Retries
from nest_client.login import PendingLogin
from nest_client.tokens import FileStore, MemoryStore, Tokens, TokenStore
from nest_client.verifier import AsyncTokenVerifier, Claims, InvalidToken, KeysUnavailable, TokenVerifier
from nest_client.webhooks import InvalidWebhook, UnknownEvent, Webhook, WebhookVerifier

__all__ = [
    "UNSET",
    "AsyncClient",
    "AsyncSession",
    "AsyncTokenVerifier",
    "Claims",
    "Client",
    "FileStore",
    "InvalidToken",
    "InvalidWebhook",
    "KeysUnavailable",
    "MemoryStore",
    "PendingLogin",
    "Retries",
    "Session",
    "TokenStore",
    "TokenVerifier",
    "Tokens",
    "UnknownEvent",
    "Webhook",
    "WebhookVerifier",
    "errors",
    "models",
    "webhook_events",
]
