"""Table of the mailer's handlers."""

from services.mailer.branding.handlers import get_client_looks, record_client_looks
from services.mailer.consents.handlers import (
    carry_marketing_consent,
    get_marketing_consent,
    record_marketing_consent,
)
from services.mailer.deliveries.handlers import list_deliveries
from services.mailer.mails.handlers import send_mail
from services.mailer.personal_data.handlers import erase_user_from_mailer, export_user_from_mailer
from services.mailer.suppressions.handlers import lift_suppression, list_suppressions, record_mail_notice
from services.mailer.texts.handlers import send_text
from shared.bus.handling import Handlers
from shared.messages.mailer.branding import GetClientLooks, RecordClientLooks
from shared.messages.mailer.consents import CarryMarketingConsent, GetMarketingConsent, RecordMarketingConsent
from shared.messages.mailer.deliveries import ListDeliveries
from shared.messages.mailer.mail_reports import RecordMailNotice
from shared.messages.mailer.mails import SendMail
from shared.messages.mailer.suppressions import LiftSuppression, ListSuppressions
from shared.messages.mailer.texts import SendText
from shared.messages.personal_data import EraseUserFromMailer, ExportUserFromMailer

HANDLERS: Handlers = {
    SendMail: send_mail,
    SendText: send_text,
    ListDeliveries: list_deliveries,
    RecordMailNotice: record_mail_notice,
    ListSuppressions: list_suppressions,
    LiftSuppression: lift_suppression,
    RecordMarketingConsent: record_marketing_consent,
    GetMarketingConsent: get_marketing_consent,
    CarryMarketingConsent: carry_marketing_consent,
    RecordClientLooks: record_client_looks,
    GetClientLooks: get_client_looks,
    ExportUserFromMailer: export_user_from_mailer,
    EraseUserFromMailer: erase_user_from_mailer,
}
