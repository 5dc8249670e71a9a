"""Which functions handle what is ordered and asked about whole people?"""

from typing import Final

from services.auth.handlers.user_parts import erase_user_part, export_user_part
from services.auth.handlers.user_processes import (
    add_exported_part,
    confirm_erasure,
    continue_user_process,
    erase_user,
    export_user,
    get_user_export,
    get_user_process,
    note_erasure_wait,
)
from services.auth.handlers.users import find_user
from shared.bus.handling import Handlers
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

PEOPLE: Final[Handlers] = {
    AddExportedPart: add_exported_part,
    ConfirmErasure: confirm_erasure,
    ContinueUserProcess: continue_user_process,
    EraseUser: erase_user,
    EraseUserFromAuth: erase_user_part,
    ExportUser: export_user,
    ExportUserFromAuth: export_user_part,
    FindUser: find_user,
    GetUserExport: get_user_export,
    GetUserProcess: get_user_process,
    NoteErasureWait: note_erasure_wait,
}
