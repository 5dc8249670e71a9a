"""Context of auth's handlers: stores, adapters and settings, built in ``app.py``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.auth.account_links.store import AccountLinks
from services.auth.accounts.passwords import PasswordHasher
from services.auth.accounts.store import Applications, Owners
from services.auth.application_users.store import ApplicationUsers
from services.auth.audit.recorder import AuditRecorder
from services.auth.audit.store import AuditEntries
from services.auth.clients.store import Clients
from services.auth.dead_letters.store import RemovedLetters, Replays
from services.auth.entitlements.store import EntitlementRows
from services.auth.magic_links.mail_backlog import MailBacklog
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.store import PersonalData, UserExportParts, UserProcesses
from services.auth.phone.models import TextPolicy
from services.auth.phone.store import PhoneCodes
from services.auth.rate_limits.limiter import RateLimiter
from services.auth.rate_limits.refusal_budget import RefusalBudget
from services.auth.sealing_keys.store import SealingKeys
from services.auth.sessions.geoip import GeoIp
from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.models import RotationPolicy
from services.auth.signing_keys.store import SigningKeys
from services.auth.tokens.signer import LastingTokens, TokenSigner
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from shared.bus.paused_partitions import PausedPartitions
from shared.dead_letters.queue import DeadLetterQueue
from shared.messages import Sealed
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Third argument of every handler of auth.

    Attributes:
        personal_data: everything that auth stores about a user.
        keyring: signing keys of this process.
        dead_letters: dead-letter topics of all services.
        paused_partitions: paused partitions of all services.
        sealer: seals secrets for auth, and unseals them.
        guesses_per_code: number of wrong guesses that void a code.
        test_domains: whether addresses under ``.test`` are valid; never in production.
        partial_search: whether operators may search for a part of an address.
        test_login: whether ``log_in_for_testing`` works; never in production.
        issuer: the URL under which clients reach the gateway, for links in mails.
        old_clients: whether clients of the accounts API that are older than Nest are supported.
    """

    clients: Clients
    users: Users
    identifiers: Identifiers
    authorizations: Authorizations
    entitlements: EntitlementRows
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    phone_codes: PhoneCodes
    owners: Owners
    applications: Applications
    application_users: ApplicationUsers
    account_links: AccountLinks
    personal_data: PersonalData
    user_processes: UserProcesses
    user_export_parts: UserExportParts
    user_export_retention: timedelta
    sealing_keys: SealingKeys
    signing_keys: SigningKeys
    keyring: Keyring
    rotation: RotationPolicy
    signer: TokenSigner
    deletion_tokens: LastingTokens
    audit: AuditRecorder
    audit_entries: AuditEntries
    rate_limits: RateLimiter
    refusal_budget: RefusalBudget
    passwords: PasswordHasher
    geoip: GeoIp
    dead_letters: DeadLetterQueue
    paused_partitions: PausedPartitions
    removed_letters: RemovedLetters
    replays: Replays
    inbox_retention: timedelta
    guesses_per_code: int
    sealer: Sealer
    authorization_lifetime: timedelta
    typed_code_lifetime: timedelta
    mail_backlog: MailBacklog
    test_domains: bool
    partial_search: bool
    text_policy: TextPolicy
    phone_code_lifetime: timedelta
    test_login: bool
    old_clients: bool
    issuer: str

    def unseal(self, secret: Sealed) -> str:
        """Plain text of a sealed field of a message to auth."""
        return self.sealer.unseal_secret("auth", secret)
