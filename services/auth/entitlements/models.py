"""The features of a user, and the claims that carry them in access tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

MAX_CLAIM_FEATURES: Final = 50
"""Features in a token. Every request carries it, in a header that many servers limit to 8 KB."""
MAX_CLAIM_LENGTH: Final = 1_500
"""Characters of the claim ``ent`` as JSON. In base64 it is a third longer, and a token has 4,096 characters at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlements:
    """The features that a user is entitled to.

    Attributes:
        id: ID of the user.
        features: lookup keys of the features.
        ent_v: number of the last change, from 1.
        updated_at: when auth learned of it.
    """

    id: str
    features: tuple[str, ...]
    ent_v: int
    updated_at: datetime
    version: int = 1

    def change(self, features: tuple[str, ...], ent_v: int, *, at: datetime) -> Self:
        """Replace the features by those of a newer change; an older or equal one changes nothing."""
        return self if ent_v <= self.ent_v else replace(self, features=features, ent_v=ent_v, updated_at=at)


def entitlement_claims(entitlements: Entitlements | None) -> dict[str, Any]:
    """The claims ``ent`` and ``ent_v`` of a user; without entitlements an empty array and 0.

    ``ent`` is left out, and never cut, if it has more than ``MAX_CLAIM_FEATURES`` features or ``MAX_CLAIM_LENGTH``
    characters: an incomplete array would look like the loss of features.
    """
    if entitlements is None:
        return {"ent": [], "ent_v": 0}
    features, claims = list(entitlements.features), {"ent_v": entitlements.ent_v}
    if len(features) > MAX_CLAIM_FEATURES or len(json.dumps(features)) > MAX_CLAIM_LENGTH:
        return claims
    return {"ent": features, **claims}
