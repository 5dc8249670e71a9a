"""MongoDB store of the clients' branding, and a one-second cache in front of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from services.mailer.branding.models import Branding, ClientBranding
from shared.documents import Rows, document_of, entity_of
from shared.mongo import Document

CACHE_SECONDS: Final = 1.0
"""How long an instance may use branding that has been changed since."""
MAX_CACHED_CLIENTS: Final = 1_000
"""When the cache is full, it is cleared and all clients are read again."""


class ClientBrandings(Rows[ClientBranding]):
    """The collection ``client_looks``: one document per client whose branding was set.

    The fields of ``chosen`` are stored at the top level of the document.
    """

    COLLECTION: Final = "client_looks"
    INDEXES: Final = ()

    def _document(self, entity: ClientBranding) -> Document:
        document = document_of(entity)
        return {**document.pop("chosen"), **document}

    def _read(self, document: Document) -> ClientBranding:
        return entity_of(ClientBranding, {**document, "chosen": document})


class BrandingCache:
    """Branding per client, cached for one second; clients without their own have the deployment's, ``default``."""

    def __init__(self, default: Branding, store: ClientBrandings, clock: Callable[[], float] = time.monotonic) -> None:
        self.default = default
        self._store = store
        self._clock = clock
        self._cached: dict[str, tuple[float, Branding]] = {}

    async def get(self, client_id: str | None) -> Branding:
        """Return the branding of a client's mails and texts; the default for None."""
        if client_id is None:
            return self.default
        cached = self._cached.get(client_id)
        if cached is not None and self._clock() < cached[0]:
            return cached[1]
        # The expiry counts from before the read: a change during the read must not be hidden for longer.
        expires = self._clock() + CACHE_SECONDS
        stored = await self._store.find(client_id)
        branding = self.default if stored is None else self.default.overridden_by(stored.chosen)
        if len(self._cached) >= MAX_CACHED_CLIENTS:
            self._cached.clear()
        self._cached[client_id] = expires, branding
        return branding
