"""Where auth keeps what it knows: MongoDB's documents, and nothing that decides."""

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import IndexModel

from services.auth.store.application_users import ApplicationUsers
from services.auth.store.applications import Applications
from services.auth.store.audit import AuditEntries
from services.auth.store.authorizations import Authorizations
from services.auth.store.chains import AccessTokens, RefreshTokens
from services.auth.store.clients import Clients
from services.auth.store.limits import Familiars, LimitUses, Tallies
from services.auth.store.owners import Owners
from services.auth.store.phone_codes import PhoneCodes
from services.auth.store.removed_letters import RemovedLetters
from services.auth.store.replays import Replays
from services.auth.store.signing_keys import SigningKeys
from services.auth.store.user_processes import UserExportParts, UserProcesses
from services.auth.store.users import Identifiers, Users

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    ApplicationUsers.COLLECTION: ApplicationUsers.INDEXES,
    Applications.COLLECTION: Applications.INDEXES,
    AuditEntries.COLLECTION: AuditEntries.INDEXES,
    Clients.COLLECTION: (),
    Users.COLLECTION: (),
    Identifiers.COLLECTION: Identifiers.INDEXES,
    Authorizations.COLLECTION: Authorizations.INDEXES,
    AccessTokens.COLLECTION: AccessTokens.INDEXES,
    RefreshTokens.COLLECTION: RefreshTokens.INDEXES,
    Owners.COLLECTION: Owners.INDEXES,
    PhoneCodes.COLLECTION: PhoneCodes.INDEXES,
    RemovedLetters.COLLECTION: RemovedLetters.INDEXES,
    Replays.COLLECTION: Replays.INDEXES,
    SigningKeys.COLLECTION: (),
    LimitUses.COLLECTION: LimitUses.INDEXES,
    Familiars.COLLECTION: Familiars.INDEXES,
    Tallies.COLLECTION: Tallies.INDEXES,
    UserProcesses.COLLECTION: UserProcesses.INDEXES,
    UserExportParts.COLLECTION: UserExportParts.INDEXES,
}
"""What must be there before the first message."""
