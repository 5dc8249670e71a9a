"""A valid response of each operators' method; test_commands.py validates them against the views."""

from typing import Any, Final

from pydantic import BaseModel

from shared.messages.auth.audit import AuditEntriesView
from shared.messages.auth.clients import ClientList, ClientView
from shared.messages.auth.dead_letters import DeadLettersView, ReplayedDeadLettersView
from shared.messages.auth.partitions import PausedPartitionsView
from shared.messages.auth.rate_limits import RateLimitsView
from shared.messages.auth.sessions import EndedView, SessionList
from shared.messages.auth.signing_keys import SigningKeysView
from shared.messages.auth.users import UsersView, UserView
from shared.messages.billing.disputes import DisputesView
from shared.messages.billing.history import BillingHistoryEntry, BillingHistoryView, StripeEventsView
from shared.messages.billing.payments import PaymentsView
from shared.messages.billing.runs import StripeDifferencesView, StripeRunProgressView, StripeRunsView, StripeRunView
from shared.messages.billing.subscriptions import ReconcileUserView, SubscriptionView
from shared.messages.gateway import SystemStateView
from shared.messages.mailer.branding import ClientLooksView, MailPreviewView
from shared.messages.mailer.deliveries import DeliveriesView
from shared.messages.mailer.suppressions import SuppressionsView, SuppressionView
from shared.messages.mailer.webhooks import (
    NewWebhookSecretView,
    WebhookDeliveriesView,
    WebhookEndpointList,
    WebhookEndpointView,
    WebhookReplayView,
    WebhookTestView,
)
from shared.messages.news import NewsItemDetails, NewsItemDetailsList
from shared.messages.personal_data import UserExportView, UserProcessView

AT: Final = "2026-11-21T06:05:00.000Z"
ENDPOINT: Final[dict[str, Any]] = {
    "id": "webhookendpoint_1",
    "client_id": "client_1",
    "url": "https://app.example/webhooks",
    "types": ["user.*", "trial.started"],
    "description": "",
    "enabled": True,
    "disabled_reason": None,
    "disabled_at": None,
    "secrets": [{"id": "webhooksecret_1", "created_at": AT, "expires_at": None}],
    "pending": 0,
    "last_delivered_at": AT,
    "created_at": AT,
    "updated_at": AT,
    "version": 2,
}
ATTEMPT: Final[dict[str, Any]] = {"at": AT, "duration_ms": 12, "status": 503, "error": "status"}
WEBHOOK: Final[dict[str, Any]] = {
    "endpoint_id": "webhookendpoint_1",
    "event_id": "webhookevent_1",
    "type": "user.created",
    "user_id": "user_1",
    "state": "pending",
    "created_at": AT,
    "updated_at": AT,
    "next_attempt_at": AT,
    "attempts": [ATTEMPT],
}
CLIENT: Final[dict[str, Any]] = {
    "id": "client_1",
    "name": "Beak",
    "redirect_uris": ["https://app.example/a", "https://app.example/b"],
    "disabled": False,
    "created_at": AT,
    "updated_at": AT,
    "version": 3,
}
ITEM: Final[dict[str, Any]] = {
    "id": "newsitem_1",
    "primary": {
        "code": "generic_banner",
        "dismissible": True,
        "payload": {"emoji": "", "title": "Down on Sunday", "body": "For an hour.", "action": None},
    },
    "fallback": None,
    "clients": None,
    "locales": ["de", "fr-CA"],
    "min_app_version": None,
    "max_app_version": None,
    "subscriptions": None,
    "priority": 7,
    "starts_at": AT,
    "ends_at": None,
    "created_at": AT,
    "updated_at": AT,
    "version": 1,
}
LIMIT: Final[dict[str, Any]] = {
    "name": "magic-links-per-address",
    "setting": "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS",
    "per": "address",
    "rules": [{"count": 1, "seconds": 60, "used": 1}, {"count": 5, "seconds": 3600, "used": 3}],
    "free_at": AT,
}
SYSTEM: Final[dict[str, Any]] = {
    "gateway": {
        "instance": "gateway-1",
        "release": "1.0",
        "started_at": AT,
        "problems": [],
        "calls_waiting": 2,
        "requests": 100,
        "failed_requests": 1,
        "requests_per_second": 3.5,
    },
    "measured_at": AT,
    "services": [
        {
            "service": "auth",
            "state": "running",
            "instances": [{"name": "auth-1", "host": "10.0.0.1", "partitions": 48}],
            "lag_records": 4,
            "lag_seconds": 0.3,
            "expired_records": 0,
            "handled_per_second": 12.5,
        },
        {
            "service": "mailer",
            "state": "away",
            "instances": [],
            "lag_records": 17,
            "lag_seconds": 61.0,
            "expired_records": 0,
            "handled_per_second": 0.0,
        },
    ],
    "topics": [{"topic": "auth.commands", "partitions": 48, "lag_records": 4, "written_per_second": 12.5}],
}
USER: Final[dict[str, Any]] = {
    "id": "user_1",
    "created_at": AT,
    "identifiers": [
        {
            "id": "userident_1",
            "identifier_type": "email",
            "identifier_value": "ada@example.com",
            "created_at": AT,
            "updated_at": AT,
            "verified_at": AT,
            "removed_at": None,
        }
    ],
}
SESSION: Final[dict[str, Any]] = {
    "id": "authzcode_1",
    "client_id": "client_1",
    "device": {"platform": "mac"},
    "created_at": AT,
    "last_used_at": AT,
    "expires_at": AT,
    "place": {"network": "203.0.113.0/24", "country": "CH", "city": "Zurich"},
    "current": False,
}
PROCESS: Final[dict[str, Any]] = {
    "id": "userproc_1",
    "kind": "export",
    "user_id": "user_1",
    "state": "done",
    "requested_at": AT,
    "finished_at": AT,
    "expires_at": AT,
    "services": [{"service": name, "done_at": AT} for name in ("auth", "billing", "mailer", "news")],
}
KEYS: Final[dict[str, Any]] = {
    "keys": [
        {
            "kid": "k1",
            "algorithm": "ES256",
            "state": "active",
            "created_at": AT,
            "signs_from": AT,
            "verifies_until": None,
        }
    ]
}
RUN: Final[dict[str, Any]] = {
    "id": "striperun_1",
    "kind": "verify",
    "repair": False,
    "status": "done",
    "stage": "looks",
    "counts": {"customers": 2, "subscriptions": 1},
    "differences": 0,
    "scheduled": False,
    "started_at": AT,
    "updated_at": AT,
    "finished_at": AT,
}
SUBSCRIPTION: Final[dict[str, Any]] = {
    "id": "sub_1",
    "user_id": "user_1",
    "status": "active",
    "active": True,
    "entitled": True,
    "will_renew": True,
    "start_date": AT,
    "end_date": AT,
    "cancel_at": None,
    "cancel_type": None,
    "cancelled_at": None,
    "overdue_since": None,
    "grace_ends_at": None,
    "collection_paused": None,
    "trial_id": None,
    "duplicate_of": None,
    "other_subscription_ids": ["sub_0"],
    "stp_subscription_id": "sub_stripe",
    "stp_customer_id": "cus_1",
    "stp_product_id": "prod_1",
    "stp_created_at": AT,
    "read_at": AT,
    "created_at": AT,
    "updated_at": AT,
}
PAYMENT: Final[dict[str, Any]] = {
    "id": "payment_1",
    "user_id": "user_1",
    "status": "requires_payment_method",
    "amount": 1250,
    "amount_received": 0,
    "amount_refunded": 0,
    "currency": "chf",
    "failure_code": "card_declined",
    "decline_code": "insufficient_funds",
    "disputed": False,
    "stp_payment_intent_id": "pi_1",
    "stp_charge_id": None,
    "stp_invoice_id": None,
    "stp_subscription_id": None,
    "stp_customer_id": "cus_1",
    "created_at": AT,
    "cancelled_at": None,
    "updated_at": AT,
}
DISPUTE: Final[dict[str, Any]] = {
    "id": "dispute_1",
    "user_id": None,
    "payment_id": "payment_1",
    "status": "needs_response",
    "reason": "fraudulent",
    "amount": 500,
    "currency": "jpy",
    "respond_by": AT,
    "stp_dispute_id": "dp_1",
    "stp_charge_id": "ch_1",
    "stp_payment_intent_id": "pi_1",
    "stp_invoice_id": None,
    "stp_subscription_id": None,
    "stp_customer_id": None,
    "created_at": AT,
    "updated_at": AT,
}
DELIVERY: Final[dict[str, Any]] = {
    "id": "delivery_1",
    "medium": "mail",
    "state": "failed",
    "template": "magic-link",
    "client_id": "client_1",
    "locale": "en",
    "attempts": 2,
    "reason": "550 no such user",
    "message_id": "m1",
    "created_at": AT,
    "updated_at": AT,
}
SUPPRESSION: Final[dict[str, Any]] = {
    "delivery_id": "delivery_1",
    "cause": "bounce",
    "since": AT,
    "template": "welcome",
    "reason": None,
}
LETTER: Final[dict[str, Any]] = {
    "id": "mailer.commands.17",
    "topic": "mailer.commands",
    "partition": 0,
    "offset": 17,
    "service": "mailer",
    "reason": "failing",
    "detail": "KeyError: 'x'",
    "frames": ["services/mailer/mails/handlers.py:12 send"],
    "tries": 5,
    "put_aside_at": AT,
    "type": "mailer.send-mail",
    "message_id": "m1",
    "made_at": AT,
    "key": {"size": 3, "text": "abc"},
    "headers": [{"name": "type", "value": {"size": 16, "text": "mailer.send-mail"}}],
    "headers_left_out": 0,
    "body": {"size": 2, "text": "{}"},
    "closed": False,
    "replayed_at": None,
}
ENTRY: Final[dict[str, Any]] = {
    "id": "auditentry_1",
    "at": AT,
    "action": "create_client",
    "outcome": "done",
    "code": None,
    "caller": "internal",
    "caller_user_id": None,
    "user_id": None,
    "client_id": "client_1",
    "session_id": None,
    "identifier_id": None,
    "client_ip": "127.0.0.1",
    "message_id": "m1",
}
LOOKS: Final[dict[str, Any]] = {
    "client_id": "client_1",
    "chosen": {"product_name": "Beak"},
    "shown": {
        "product_name": "Beak",
        "sender": "Beak <mail@getbeak.app>",
        "support_address": "help@getbeak.app",
        "accent_colour": "#2f57d6",
        "button_text_colour": "#ffffff",
        "link_colour": "#2f57d6",
        "background_colour": "#f3f4f6",
        "logo_url": None,
        "locale": "de",
    },
    "updated_at": None,
}
EXPORT: Final[dict[str, Any]] = {
    "user_id": "user_1",
    "requested_at": AT,
    "finished_at": AT,
    "services": {"news": {"dismissals": [{"newsItemId": "newsitem_1"}]}},
    "next_cursor": None,
}
PAUSE: Final = {
    "id": "mailer/mailer.commands/3",
    "reason": "10 dead letters in a row",
    "offset": 17,
    "since": AT,
    "instance": "mailer-1",
    "release": "0.1.0",
}
EVENTS: Final = {
    "events": [
        {
            "stp_event_id": "evt_2",
            "type": "charge.refunded",
            "object_type": "charge",
            "object_id": "ch_1",
            "made_at": AT,
            "received_at": AT,
            "handled_at": None,
            "outcome": None,
        },
        {
            "stp_event_id": "evt_1",
            "type": "invoice.payment_failed",
            "object_type": "invoice",
            "object_id": "in_1",
            "made_at": AT,
            "received_at": AT,
            "handled_at": AT,
            "outcome": "read",
        },
    ],
    "next_cursor": None,
}
VIEWS: Final[dict[str, tuple[type[BaseModel], Any]]] = {
    "list_clients": (ClientList, [CLIENT]),
    "create_client": (ClientView, CLIENT),
    "update_client": (ClientView, CLIENT),
    "get_client_looks": (ClientLooksView, LOOKS),
    "set_client_looks": (ClientLooksView, LOOKS),
    "list_all_news_items": (NewsItemDetailsList, [ITEM]),
    "create_news_item": (NewsItemDetails, ITEM),
    "update_news_item": (NewsItemDetails, ITEM),
    "find_user": (UserView, USER),
    "reconcile_user": (ReconcileUserView, {"subscriptions": 2}),
    "list_users": (UsersView, {"users": [USER], "next_cursor": None}),
    "get_user": (UserView, USER),
    "list_sessions": (SessionList, [SESSION]),
    "revoke_sessions": (EndedView, {"ended": 1}),
    "export_user": (UserProcessView, PROCESS),
    "erase_user": (UserProcessView, {**PROCESS, "kind": "erasure"}),
    "get_user_process": (UserProcessView, PROCESS),
    "get_user_export": (UserExportView, EXPORT),
    "get_subscription": (SubscriptionView, SUBSCRIPTION),
    "list_payments": (PaymentsView, {"payments": [PAYMENT], "next_cursor": None}),
    "list_stripe_events": (StripeEventsView, EVENTS),
    "list_billing_history": (
        BillingHistoryView,
        BillingHistoryView(
            entries=(
                BillingHistoryEntry.model_validate(
                    {
                        "id": "a" * 32,
                        "at": AT,
                        "event": "payment-refunded",
                        "payment_id": "payment_1",
                        "amount": 500,
                        "amount_refunded": 200,
                        "currency": "usd",
                    }
                ),
                BillingHistoryEntry.model_validate(
                    {
                        "id": "b" * 32,
                        "at": AT,
                        "event": "plan-changed",
                        "subscription_id": "subscription_1",
                        "before": [{"product_id": "prod_1", "price_id": "price_1", "quantity": 1}],
                        "after": [{"product_id": "prod_1", "price_id": "price_1", "quantity": 9}],
                    }
                ),
                BillingHistoryEntry.model_validate(
                    {
                        "id": "c" * 32,
                        "at": AT,
                        "event": "dispute-funds-withdrawn",
                        "dispute_id": "dispute_1",
                        "amount": 500,
                        "currency": "jpy",
                        "funds": 330,
                        "funds_currency": "usd",
                    }
                ),
            ),
            next_cursor=None,
        ).model_dump(mode="json"),
    ),
    "list_disputes": (DisputesView, {"disputes": [DISPUTE], "next_cursor": None}),
    "reconcile_subscriptions": (StripeRunView, RUN),
    "sweep_stripe_events": (StripeRunView, RUN),
    "replay_stripe_events": (StripeRunView, RUN),
    "import_stripe_account": (StripeRunView, RUN),
    "stop_stripe_run": (StripeRunView, {**RUN, "status": "stopped"}),
    "resume_stripe_run": (StripeRunView, RUN),
    "get_stripe_run": (
        StripeRunProgressView,
        {**RUN, "objects_read": 3, "objects_total": 3, "seconds_left": None},
    ),
    "list_stripe_runs": (
        StripeRunsView,
        {
            "runs": [
                {name: RUN[name] for name in RUN if name not in ("repair", "stage", "counts", "updated_at")},
            ]
        },
    ),
    "list_stripe_differences": (StripeDifferencesView, {"differences": [], "next_cursor": None}),
    "list_deliveries": (DeliveriesView, {"deliveries": [DELIVERY], "next_cursor": None}),
    "list_suppressions": (SuppressionsView, {"suppressions": [SUPPRESSION], "next_cursor": None}),
    "lift_suppression": (SuppressionView, SUPPRESSION),
    "list_webhook_endpoints": (WebhookEndpointList, {"endpoints": [ENDPOINT]}),
    "create_webhook_endpoint": (NewWebhookSecretView, {**ENDPOINT, "secret": "whsec_c2VjcmV0"}),
    "update_webhook_endpoint": (WebhookEndpointView, ENDPOINT),
    "roll_webhook_secret": (NewWebhookSecretView, {**ENDPOINT, "secret": "whsec_c2VjcmV0"}),
    "list_webhook_deliveries": (WebhookDeliveriesView, {"deliveries": [WEBHOOK], "next_cursor": None}),
    "replay_webhooks": (WebhookReplayView, {"replayed": 3}),
    "send_test_webhook": (WebhookTestView, {"event_id": "webhookevent_1", "attempt": ATTEMPT}),
    "list_dead_letters": (DeadLettersView, {"letters": [LETTER], "next_cursor": None}),
    "replay_dead_letters": (
        ReplayedDeadLettersView,
        {"letters": [{"id": LETTER["id"], "outcome": "replayed"}], "next_cursor": None},
    ),
    "preview_mail": (
        MailPreviewView,
        {
            "sender": "Beak <mail@getbeak.app>",
            "subject": "Your link",
            "text": "Hello\n",
            "html": "<p>Hello</p>",
            "locale": "de",
        },
    ),
    "list_rate_limits": (RateLimitsView, {"limits": [LIMIT], "lift_loopback": False}),
    "get_system_state": (SystemStateView, SYSTEM),
    "list_paused_partitions": (PausedPartitionsView, {"partitions": [PAUSE]}),
    "list_audit_entries": (AuditEntriesView, {"entries": [ENTRY], "next_cursor": None}),
    "list_signing_keys": (SigningKeysView, KEYS),
    "rotate_signing_keys": (SigningKeysView, KEYS),
}
RESPONSES: Final[dict[str, Any]] = {
    "remove_news_item": None,
    "resend_magic_link": None,
    "delete_webhook_endpoint": None,
    "resume_partition": None,
    **{name: response for name, (_, response) in VIEWS.items()},
}
