"""What does a payment mean for the subscription? Its status after money came, or did not."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.endings import end
from services.stripe_double.invoices import subscription_of


def paid(account: Account, invoice: Json) -> None:
    """The latest invoice was paid, or is being paid by the bank: the subscription is active (again)."""
    subscription = subscription_of(account, invoice)
    if subscription["latest_invoice"] != invoice["id"]:
        return
    if subscription["status"] in {"incomplete", "past_due", "unpaid"}:
        become(account, subscription, "active")


def owing(account: Account, invoice: Json) -> None:
    """An attempt failed: an active subscription is past due, a new one stays incomplete."""
    subscription = subscription_of(account, invoice)
    if subscription["status"] == "active" and subscription["latest_invoice"] == invoice["id"]:
        become(account, subscription, "past_due")


def given_up(account: Account, invoice: Json) -> None:
    """The last attempt failed: what the account's owner has chosen for that follows."""
    subscription = subscription_of(account, invoice)
    if subscription["status"] != "past_due":
        return
    if account.settings.after_retries == "canceled":
        end(account, subscription, reason="payment_failed")
    else:
        become(account, subscription, account.settings.after_retries)


def become(account: Account, subscription: Json, status: str) -> Json:
    """Gives a subscription a status and announces it, unless a call still works on it (`_quiet`)."""
    after = account.update(subscription, status=status)
    return after if after["_quiet"] else events.changed(account, "customer.subscription.updated", subscription, after)
