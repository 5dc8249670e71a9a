"""Store of the features of users."""

from __future__ import annotations

from typing import Final

from services.billing.entitlements.models import Entitlements
from shared.documents import Rows


class EntitlementRows(Rows[Entitlements]):
    """The collection ``entitlements``: one document for each user who ever had a feature."""

    COLLECTION: Final = "entitlements"
    INDEXES: Final = ()
