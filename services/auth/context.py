"""What do the handlers of auth work with?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.auth.audit import Audit
from services.auth.limits import Limits
from services.auth.models.phone_numbers import Texted
from services.auth.places import Places
from services.auth.store.authorizations import Authorizations
from services.auth.store.chains import AccessTokens, RefreshTokens
from services.auth.store.clients import Clients
from services.auth.store.phone_codes import PhoneCodes
from services.auth.store.users import Identifiers, Users
from services.auth.tokens import TokenSigner
from shared.messages import Sealed
from shared.sealed import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """The stores and adapters of auth, built in ``app.py``.

    Attributes:
        signer: signs tokens, and reads those that it has signed.
        audit: writes down what somebody tried, and what came of it.
        limits: how often something may be done.
        places: where networks are.
        sealer: opens the secrets that come in messages, and closes what auth keeps for itself.
        authorization_life: how long a magic link may be redeemed.
        test_domains: whether addresses under ``.test`` are taken; never in production.
        texted: which numbers get texts.
        phone_code_life: how long a code by text may be redeemed.
        test_login: whether anybody may be logged in without a code; never in production.
    """

    clients: Clients
    users: Users
    identifiers: Identifiers
    authorizations: Authorizations
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    phone_codes: PhoneCodes
    signer: TokenSigner
    audit: Audit
    limits: Limits
    places: Places
    sealer: Sealer
    authorization_life: timedelta
    test_domains: bool
    texted: Texted
    phone_code_life: timedelta
    test_login: bool

    def reveal(self, secret: Sealed) -> str:
        """The plain text of a secret field of a message to auth."""
        return self.sealer.reveal("auth", secret)
