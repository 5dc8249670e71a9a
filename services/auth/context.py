"""What do the handlers of auth work with?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.auth.audit import Audit
from services.auth.keys import Keyring
from services.auth.limits import Limits
from services.auth.models.phone_numbers import Texted
from services.auth.models.signing_keys import Rotation
from services.auth.passwords import Passwords
from services.auth.places import Places
from services.auth.store.application_users import ApplicationUsers
from services.auth.store.applications import Applications
from services.auth.store.authorizations import Authorizations
from services.auth.store.chains import AccessTokens, RefreshTokens
from services.auth.store.clients import Clients
from services.auth.store.owners import Owners
from services.auth.store.people import People
from services.auth.store.phone_codes import PhoneCodes
from services.auth.store.removed_letters import RemovedLetters
from services.auth.store.replays import Replays
from services.auth.store.signing_keys import SigningKeys
from services.auth.store.user_processes import UserExportParts, UserProcesses
from services.auth.store.users import Identifiers, Users
from services.auth.tokens import TokenSigner
from shared.dead_letters.topics import DeadLetterTopics
from shared.messages import Sealed
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """The stores and adapters of auth, built in ``app.py``.

    Attributes:
        people: all that is held on a person, in one place.
        user_exports_kept: how long the document of an export is kept.
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
        authorization_life: how long a magic link may be redeemed.
        test_domains: whether addresses under ``.test`` are taken; never in production.
        texted: which numbers get texts.
        phone_code_life: how long a code by text may be redeemed.
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
    user_exports_kept: timedelta
    signing_keys: SigningKeys
    keyring: Keyring
    rotation: Rotation
    signer: TokenSigner
    audit: Audit
    limits: Limits
    passwords: Passwords
    places: Places
    dead_letters: DeadLetterTopics
    removed_letters: RemovedLetters
    replays: Replays
    remembered: timedelta
    guesses_per_code: int
    sealer: Sealer
    authorization_life: timedelta
    test_domains: bool
    texted: Texted
    phone_code_life: timedelta
    test_login: bool
    old_clients: bool

    def reveal(self, secret: Sealed) -> str:
        """The plain text of a secret field of a message to auth."""
        return self.sealer.reveal("auth", secret)
