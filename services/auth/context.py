"""What do the handlers of auth work with?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.auth.accounts.passwords import Passwords
from services.auth.accounts.store import Applications, Owners
from services.auth.application_users.store import ApplicationUsers
from services.auth.audit.recorder import Audit
from services.auth.clients.store import Clients
from services.auth.dead_letters.store import RemovedLetters, Replays
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.store import People, UserExportParts, UserProcesses
from services.auth.phone.models import TextPolicy
from services.auth.phone.store import PhoneCodes
from services.auth.rate_limits.limiter import RateLimiter
from services.auth.sessions.geoip import GeoIp
from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.models import RotationPolicy
from services.auth.signing_keys.store import SigningKeys
from services.auth.tokens.signer import TokenSigner
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from shared.dead_letters.queue import DeadLetterQueue
from shared.messages import Sealed
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """The stores and adapters of auth, built in ``app.py``.

    Attributes:
        people: all that is held on a person, in one place.
        user_export_retention: how long the document of an export is kept.
        keyring: the signing keys as this process knows them.
        rotation: when signing keys follow each other.
        signer: signs tokens, and reads those that it has signed.
        audit: writes down what somebody tried, and what came of it.
        limits: how often something may be done.
        passwords: hashes passwords and recognises them.
        places: where networks are.
        dead_letters: those of all services.
        removed_letters: which of them nobody is shown any more.
        replays: which of them were put back.
        remembered: how long the inboxes remember a message.
        guesses_per_code: how many wrong guesses void a code.
        sealer: opens the secrets that come in messages, and closes what auth keeps for itself.
        authorization_lifetime: how long a magic link may be redeemed.
        test_domains: whether addresses under ``.test`` are taken; never in production.
        texted: which numbers get texts.
        phone_code_lifetime: how long a code by text may be redeemed.
        test_login: whether anybody may be logged in without a code; never in production.
        old_clients: whether clients of the accounts API are served that are older than Nest.
    """

    clients: Clients
    users: Users
    identifiers: Identifiers
    authorizations: Authorizations
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    phone_codes: PhoneCodes
    owners: Owners
    applications: Applications
    application_users: ApplicationUsers
    people: People
    user_processes: UserProcesses
    user_export_parts: UserExportParts
    user_export_retention: timedelta
    signing_keys: SigningKeys
    keyring: Keyring
    rotation: RotationPolicy
    signer: TokenSigner
    audit: Audit
    limits: RateLimiter
    passwords: Passwords
    places: GeoIp
    dead_letters: DeadLetterQueue
    removed_letters: RemovedLetters
    replays: Replays
    remembered: timedelta
    guesses_per_code: int
    sealer: Sealer
    authorization_lifetime: timedelta
    test_domains: bool
    texted: TextPolicy
    phone_code_lifetime: timedelta
    test_login: bool
    old_clients: bool

    def unseal(self, secret: Sealed) -> str:
        """The plain text of a secret field of a message to auth."""
        return self.sealer.unseal_secret("auth", secret)
