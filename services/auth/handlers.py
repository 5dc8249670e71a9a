"""Table of the messages that auth handles, with the handler of each."""

from typing import Final

from services.auth.accounts import handlers as accounts
from services.auth.application_users import handlers as application_users
from services.auth.audit import handlers as audit
from services.auth.clients import handlers as clients
from services.auth.dead_letters import handlers as dead_letters
from services.auth.magic_links import handlers as magic_links
from services.auth.personal_data import handlers as personal_data
from services.auth.phone import handlers as phone
from services.auth.sessions import handlers as sessions
from services.auth.signing_keys import handlers as signing_keys
from services.auth.tokens import handlers as tokens
from services.auth.users import handlers as users
from shared.bus.handling import Handlers
from shared.messages.auth.accounts import (
    CheckSignIn,
    CreateApplication,
    DeleteApplication,
    DeleteOwner,
    GetApplicationUser,
    GetOwner,
    LogInOwner,
    RegisterOwner,
    RemoveApplicationUsers,
    RemoveOwnerApplications,
    SignIn,
    SignInWithEmail,
    SignUp,
    UpdateApplicationUser,
    UpdateOwner,
)
from shared.messages.auth.audit import ListAuditEntries, RecordAuditEntry
from shared.messages.auth.clients import AnnounceClient, CreateClient, ListClients, SetClientLooks, UpdateClient
from shared.messages.auth.dead_letters import ListDeadLetters, ReplayDeadLetters
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, SendMagicLink, SendTrialMagicLink
from shared.messages.auth.phone import LogInForTesting, RegisterPhoneUser, SendPhoneCode, VerifyPhoneCode
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.signing_keys import KeepSigningKeys, ListSigningKeys, RotateSigningKeys
from shared.messages.auth.tokens import AuthenticateUser
from shared.messages.auth.users import EnsureUser, FindConsentAddress, GetUser, SetMarketingConsent
from shared.messages.personal_data import (
    AddExportedPart,
    ConfirmErasure,
    ContinueUserProcess,
    EraseUser,
    EraseUserFromAuth,
    ExportUser,
    ExportUserFromAuth,
    FindUser,
    GetUserExport,
    GetUserProcess,
    NoteErasureWait,
)

HANDLERS: Final[Handlers] = {
    CreateApplication: accounts.create_application,
    DeleteApplication: accounts.delete_application,
    DeleteOwner: accounts.delete_owner,
    GetOwner: accounts.get_owner,
    LogInOwner: accounts.log_in_owner,
    RegisterOwner: accounts.register_owner,
    RemoveApplicationUsers: accounts.remove_application_users,
    RemoveOwnerApplications: accounts.remove_owner_applications,
    UpdateOwner: accounts.update_owner,
    CheckSignIn: application_users.check_sign_in,
    GetApplicationUser: application_users.get_application_user,
    SignIn: application_users.sign_in,
    SignInWithEmail: application_users.sign_in_with_email,
    SignUp: application_users.sign_up,
    UpdateApplicationUser: application_users.update_application_user,
    ListAuditEntries: audit.list_audit_entries,
    RecordAuditEntry: audit.record_audit_entry,
    AnnounceClient: clients.announce_client,
    CreateClient: clients.create_client,
    ListClients: clients.list_clients,
    SetClientLooks: clients.set_client_looks,
    UpdateClient: clients.update_client,
    ListDeadLetters: dead_letters.list_dead_letters,
    ReplayDeadLetters: dead_letters.replay_dead_letters,
    CreateTrialAndMagicLink: magic_links.create_trial_and_magic_link,
    SendMagicLink: magic_links.send_magic_link,
    SendTrialMagicLink: magic_links.send_trial_magic_link,
    AddExportedPart: personal_data.add_exported_part,
    ConfirmErasure: personal_data.confirm_erasure,
    ContinueUserProcess: personal_data.continue_user_process,
    EraseUser: personal_data.erase_user,
    EraseUserFromAuth: personal_data.erase_user_from_auth,
    ExportUser: personal_data.export_user,
    ExportUserFromAuth: personal_data.export_user_from_auth,
    GetUserExport: personal_data.get_user_export,
    GetUserProcess: personal_data.get_user_process,
    NoteErasureWait: personal_data.note_erasure_wait,
    LogInForTesting: phone.log_in_for_testing,
    RegisterPhoneUser: phone.register_phone_user,
    SendPhoneCode: phone.send_phone_code,
    VerifyPhoneCode: phone.verify_phone_code,
    ListSessions: sessions.list_sessions,
    RevokeSessions: sessions.revoke_sessions,
    KeepSigningKeys: signing_keys.keep_signing_keys,
    ListSigningKeys: signing_keys.list_signing_keys,
    RotateSigningKeys: signing_keys.rotate_signing_keys,
    AuthenticateUser: tokens.authenticate_user,
    EnsureUser: users.ensure_user,
    FindConsentAddress: users.find_consent_address,
    FindUser: users.find_user,
    GetUser: users.get_user,
    SetMarketingConsent: users.set_marketing_consent,
}
