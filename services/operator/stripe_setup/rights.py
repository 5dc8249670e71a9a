"""The rights of the API key, each tried by a harmless call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.billing.stripe_api.calls import RightMissing, StripeRefused
from services.billing.stripe_api.rights import Right
from services.operator.stripe_setup.changes import Api


async def missing_rights(api: Api, rights: Sequence[Right]) -> list[Right]:
    """Those of these rights that the key does not have; raises StripeUnavailable."""
    allowed = await asyncio.gather(*(_is_allowed(api, right) for right in rights))
    return [right for right, has in zip(rights, allowed, strict=True) if not has]


async def _is_allowed(api: Api, right: Right) -> bool:
    params = dict(right.params)
    try:
        if right.access == "read":
            await api.get("check_right", right.path, {"limit": 1, **params})
        else:
            await api.post("check_right", right.path, params)
    except RightMissing:
        return False
    except StripeRefused:
        # Stripe looks for the object, or checks the parameters, only after the rights.
        return True
    return True
