"""What auth does, message by message."""

from typing import Final

from services.auth.handlers.accounts import ACCOUNTS
from services.auth.handlers.addresses import find_consent_address
from services.auth.handlers.audit import list_audit_entries, record_audit_entry
from services.auth.handlers.client_looks import set_client_looks
from services.auth.handlers.clients import announce_client, create_client, list_clients, update_client
from services.auth.handlers.dead_letters import list_dead_letters, replay_dead_letters
from services.auth.handlers.links import create_trial_and_magic_link, send_magic_link, send_trial_magic_link
from services.auth.handlers.logins import authenticate_user
from services.auth.handlers.people import PEOPLE
from services.auth.handlers.phone import (
    log_in_for_testing,
    register_phone_user,
    send_phone_code,
    verify_phone_code,
)
from services.auth.handlers.sessions import list_sessions, revoke_sessions
from services.auth.handlers.signing_keys import keep_signing_keys, list_signing_keys, rotate_signing_keys
from services.auth.handlers.users import ensure_user, get_user, set_marketing_consent
from shared.bus.handling import Handlers
from shared.messages.auth.audit import ListAuditEntries, RecordAuditEntry
from shared.messages.auth.branding import SetClientLooks
from shared.messages.auth.clients import AnnounceClient, CreateClient, ListClients, UpdateClient
from shared.messages.auth.dead_letters import ListDeadLetters, ReplayDeadLetters
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, SendMagicLink, SendTrialMagicLink
from shared.messages.auth.phone import LogInForTesting, RegisterPhoneUser, SendPhoneCode, VerifyPhoneCode
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.signing_keys import KeepSigningKeys, ListSigningKeys, RotateSigningKeys
from shared.messages.auth.tokens import AuthenticateUser
from shared.messages.auth.users import EnsureUser, FindConsentAddress, GetUser, SetMarketingConsent

HANDLERS: Final[Handlers] = {
    **ACCOUNTS,
    **PEOPLE,
    AnnounceClient: announce_client,
    AuthenticateUser: authenticate_user,
    CreateClient: create_client,
    CreateTrialAndMagicLink: create_trial_and_magic_link,
    EnsureUser: ensure_user,
    FindConsentAddress: find_consent_address,
    GetUser: get_user,
    KeepSigningKeys: keep_signing_keys,
    ListClients: list_clients,
    ListDeadLetters: list_dead_letters,
    ListSessions: list_sessions,
    ListSigningKeys: list_signing_keys,
    LogInForTesting: log_in_for_testing,
    RegisterPhoneUser: register_phone_user,
    ListAuditEntries: list_audit_entries,
    RecordAuditEntry: record_audit_entry,
    ReplayDeadLetters: replay_dead_letters,
    RevokeSessions: revoke_sessions,
    RotateSigningKeys: rotate_signing_keys,
    SendMagicLink: send_magic_link,
    SendPhoneCode: send_phone_code,
    SendTrialMagicLink: send_trial_magic_link,
    SetClientLooks: set_client_looks,
    SetMarketingConsent: set_marketing_consent,
    UpdateClient: update_client,
    VerifyPhoneCode: verify_phone_code,
}
