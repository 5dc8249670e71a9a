"""Which function answers which message about owners, applications and their users?"""

from typing import Final

from services.auth.handlers.application_users import (
    check_sign_in,
    get_application_user,
    sign_in,
    sign_in_with_email,
    sign_up,
    update_application_user,
)
from services.auth.handlers.applications import create_application, delete_application, remove_application_users
from services.auth.handlers.owners import (
    delete_owner,
    get_owner,
    log_in_owner,
    register_owner,
    remove_owner_applications,
    update_owner,
)
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

ACCOUNTS: Final[Handlers] = {
    CheckSignIn: check_sign_in,
    CreateApplication: create_application,
    DeleteApplication: delete_application,
    DeleteOwner: delete_owner,
    GetApplicationUser: get_application_user,
    GetOwner: get_owner,
    LogInOwner: log_in_owner,
    RegisterOwner: register_owner,
    RemoveApplicationUsers: remove_application_users,
    RemoveOwnerApplications: remove_owner_applications,
    SignIn: sign_in,
    SignInWithEmail: sign_in_with_email,
    SignUp: sign_up,
    UpdateApplicationUser: update_application_user,
    UpdateOwner: update_owner,
}
