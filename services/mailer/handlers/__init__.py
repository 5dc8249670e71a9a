"""What the mailer does, message by message."""

from services.mailer.handlers.audience import carry_marketing_consent
from services.mailer.handlers.consents import get_marketing_consent, record_marketing_consent
from services.mailer.handlers.delivery_list import list_deliveries
from services.mailer.handlers.looks import get_client_looks, record_client_looks
from services.mailer.handlers.mails import send_mail
from services.mailer.handlers.notices import record_mail_notice
from services.mailer.handlers.people import erase_user_from_mailer, export_user_from_mailer
from services.mailer.handlers.suppression_list import lift_suppression, list_suppressions
from services.mailer.handlers.texts import send_text
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
    CarryMarketingConsent: carry_marketing_consent,
    GetClientLooks: get_client_looks,
    GetMarketingConsent: get_marketing_consent,
    LiftSuppression: lift_suppression,
    ListDeliveries: list_deliveries,
    ListSuppressions: list_suppressions,
    RecordMarketingConsent: record_marketing_consent,
    RecordClientLooks: record_client_looks,
    RecordMailNotice: record_mail_notice,
    SendMail: send_mail,
    SendText: send_text,
    EraseUserFromMailer: erase_user_from_mailer,
    ExportUserFromMailer: export_user_from_mailer,
}
