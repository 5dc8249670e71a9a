"""What the mailer does, message by message."""

from services.mailer.handlers.consents import get_marketing_consent, record_marketing_consent
from services.mailer.handlers.mails import send_mail
from services.mailer.handlers.texts import send_text
from shared.handling import Handlers
from shared.messages.mailer import GetMarketingConsent, RecordMarketingConsent, SendMail, SendText

HANDLERS: Handlers = {
    GetMarketingConsent: get_marketing_consent,
    RecordMarketingConsent: record_marketing_consent,
    SendMail: send_mail,
    SendText: send_text,
}
