"""Simulated actions of customers, of the merchant in the Dashboard, and of banks."""

from typing import Any

from services.stripe_double import (
    billing,
    checkout_sessions,
    customers,
    disputes,
    events,
    invoices,
    payment_methods,
    payments,
    portal_actions,
    subscription_items,
    subscription_updates,
    subscriptions,
)
from services.stripe_double.account import Account, Json
from services.stripe_double.checkout_creation import KIND
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.rendering import render

GOOD_CARD = "pm_card_visa"
DECLINING_CARD = "pm_card_chargeCustomerFail"


class Simulation:
    """Actions that happen outside the API. Each is one change of the account, with its events.

    Every method returns the object as the API returns it, and raises `StripeApiError` where Stripe would
    refuse the action.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    def checkout(
        self,
        price: str,
        *,
        email: str | None = None,
        customer: str | None = None,
        trial_days: int | None = None,
        payment_method: str | None = GOOD_CARD,
        coupon: str | None = None,
        promotion_code: str | None = None,
        metadata: dict[str, str] | None = None,
        quantity: int | None = None,
    ) -> Json:
        """Subscribe on a Checkout page; return the subscription.

        The subscription begins incomplete and becomes active when the card is charged, which makes two
        events. Without `customer`, Checkout creates a customer without metadata.

        Args:
            price: ID of the price.
            email: Email address of the new customer.
            customer: ID of an existing customer.
            trial_days: Length of the free trial.
            payment_method: The payment method, which becomes the default; None leaves the page without paying.
            coupon: ID of a coupon.
            promotion_code: ID of a promotion code.
            metadata: Metadata of the subscription.
            quantity: Quantity of the price; None for 1, or for a metered price.
        """
        discount = {"coupon": coupon} if coupon else {"promotion_code": promotion_code} if promotion_code else None
        with self._account.change():
            if customer is None:
                customer = customers.create_customer(self._account, _params(email=email))["id"]
            subscription = subscriptions.create_subscription(
                self._account,
                _params(
                    customer=customer,
                    items=[{"price": price} | ({} if quantity is None else {"quantity": quantity})],
                    payment_behavior="default_incomplete",
                    trial_period_days=trial_days,
                    discounts=[discount] if discount else None,
                    metadata=metadata,
                ),
            )
            if payment_method is not None:
                subscription = self._pay_first_invoice(subscription, payment_method)
            return self._rendered("subscription", subscription["id"])

    def _pay_first_invoice(self, subscription: Json, payment_method: str) -> Json:
        account = self._account
        method = payment_methods.attach(account, payment_method, subscription["customer"])
        customers.set_default_payment_method(account, subscription["customer"], method["id"])
        before = account.get("subscription", subscription["id"])
        account.update(before, default_payment_method=method["id"], _defer_events=True)
        invoice = account.get("invoice", before["latest_invoice"])
        if invoice["status"] == "open":
            billing.collect(account, invoice, method, automatic=False)
        after = account.update(account.get("subscription", before["id"]), _defer_events=False)
        return events.emit_if_changed(account, "customer.subscription.updated", before, after)

    def pay_checkout(
        self,
        session: str,
        *,
        payment_method: str = GOOD_CARD,
        authenticated: bool = True,
        promotion_code: str | None = None,
    ) -> Json:
        """Pay an open Checkout Session as its customer does on the page; return the session."""
        with self._account.change():
            checkout_sessions.complete(
                self._account,
                self._account.get(KIND, session),
                payment_method,
                authenticated=authenticated,
                promotion_code=promotion_code,
            )
            return self._rendered(KIND, session)

    def change_card(self, customer: str, payment_method: str) -> Json:
        """Replace the card in the customer portal, for all subscriptions; return the customer."""
        with self._account.change():
            return portal_actions.change_card(self._account, customer, payment_method)

    def decline(self, customer: str) -> Json:
        """Make all later charges of the customer decline, by changing the card; return the customer."""
        return self.change_card(customer, DECLINING_CARD)

    def decline_next_payment(self, customer: str, *, declines: bool = True) -> Json:
        """Let the bank decline the next payment that Stripe collects by itself, once; return the customer.

        Args:
            customer: ID of the customer, whose card stays.
            declines: False withdraws it.
        """
        with self._account.change():
            customers.decline_next_payment(self._account, customer, declines=declines)
            return self._rendered("customer", customer)

    def recover(self, customer: str) -> Json:
        """Change to a good card and pay all open invoices; return the customer."""
        rendered = self.change_card(customer, GOOD_CARD)
        with self._account.change():
            for invoice in reversed(self._account.owned("invoice", customer)):
                if invoice["status"] == "open":
                    billing.collect(self._account, invoice, automatic=False)
        return rendered

    def retry_payment(self, subscription: str) -> Json:
        """Pay the latest, open invoice with the default card, as a customer does; return the subscription."""
        with self._account.change():
            billing.collect(self._account, self._latest_invoice(subscription), automatic=False)
            return self._rendered("subscription", subscription)

    def authenticate(self, subscription: str) -> Json:
        """Pass the 3D Secure check of the latest invoice's payment; return the subscription."""
        with self._account.change():
            invoice = self._latest_invoice(subscription)
            intent = invoices.payment_intent_of(self._account, invoice)
            if intent is None or intent["status"] != "requires_action":
                raise StripeApiError("No payment of this subscription requires authentication.")
            method = self._account.get("payment_method", intent["payment_method"])
            billing.pay(self._account, intent, method, authenticated=True)
            return self._rendered("subscription", subscription)

    def cancel(self, subscription: str, *, at: str = "period_end") -> Json:
        """Cancel in the customer portal; return the subscription.

        Args:
            subscription: ID of the subscription.
            at: `period_end`; `now`; or `date`, which sets `cancel_at` and leaves `cancel_at_period_end`
                false, as the portal does with flexible billing.
        """
        with self._account.change():
            if at == "now":
                subscription_updates.cancel_subscription(self._account, _params(), subscription)
            else:
                changes = {"cancel_at_period_end": "true"}
                if at == "date":
                    end = subscription_items.period_end(self._account.get("subscription", subscription))
                    changes = {"cancel_at": str(end)}
                subscription_updates.update_subscription(self._account, _params(**changes), subscription)
            return self._rendered("subscription", subscription)

    def reactivate(self, subscription: str) -> Json:
        """Withdraw a scheduled cancellation in the customer portal; return the subscription."""
        return self._updated(subscription, cancel_at_period_end="false")

    def pause_collection(self, subscription: str, behavior: str = "void") -> Json:
        """Pause collection in the Dashboard, which leaves the status unchanged; return the subscription."""
        return self._updated(subscription, pause_collection={"behavior": behavior})

    def resume_collection(self, subscription: str) -> Json:
        """Resume collection in the Dashboard; return the subscription."""
        return self._updated(subscription, pause_collection="")

    def pause(self, subscription: str) -> Json:
        """Pause a subscription: no periods and no invoices; return it."""
        with self._account.change():
            subscription_updates.pause_subscription(self._account, _params(), subscription)
            return self._rendered("subscription", subscription)

    def resume(self, subscription: str) -> Json:
        """Resume a paused subscription with a new period; return it."""
        with self._account.change():
            subscription_updates.resume_subscription(self._account, _params(), subscription)
            return self._rendered("subscription", subscription)

    def dispute(
        self,
        subscription: str,
        *,
        reason: str = "fraudulent",
        amount: int | None = None,
        inquiry: bool = False,
    ) -> Json:
        """Dispute the last successful payment of a subscription at the customer's bank; return the dispute."""
        with self._account.change():
            charge = self._last_charge(subscription)
            return disputes.open_dispute(self._account, charge, reason=reason, amount=amount, inquiry=inquiry)

    def dispute_payment(self, customer: str, *, reason: str = "fraudulent") -> Json:
        """Dispute the last successful payment of a customer, with or without an invoice; return the dispute."""
        with self._account.change():
            return disputes.open_dispute(self._account, self._last_charge_of(customer), reason=reason)

    def close_dispute(self, dispute: str, status: str = "lost") -> Json:
        """Close a dispute by the bank's decision; return it.

        Args:
            dispute: ID of the dispute.
            status: `won`, `lost` or `prevented`; `warning_closed` for an inquiry.
        """
        with self._account.change():
            return disputes.close(self._account, self._account.get("dispute", dispute), status)

    def escalate_dispute(self, dispute: str) -> Json:
        """Turn an inquiry into a chargeback; return the dispute."""
        with self._account.change():
            return disputes.escalate(self._account, self._account.get("dispute", dispute))

    def refund(self, subscription: str, *, amount: int | None = None) -> Json:
        """Refund the last successful payment of a subscription in the Dashboard; return the refund."""
        with self._account.change():
            return payments.refund(self._account, self._last_charge(subscription), amount=amount)

    def refund_payment(self, customer: str, *, amount: int | None = None) -> Json:
        """Refund the last successful payment of a customer, with or without an invoice; return the refund."""
        with self._account.change():
            return payments.refund(self._account, self._last_charge_of(customer), amount=amount)

    def fail_refund(self, refund: str) -> Json:
        """Fail a refund at the customer's bank; return it."""
        with self._account.change():
            return payments.fail_refund(self._account, self._account.get("refund", refund))

    def pay_once(
        self,
        amount: int,
        *,
        currency: str = "usd",
        customer: str | None = None,
        payment_method: str = GOOD_CARD,
        metadata: dict[str, str] | None = None,
    ) -> Json:
        """Make a one-time payment without a subscription; return the payment intent, succeeded or declined."""
        account = self._account
        with account.change():
            intent = payments.new_payment_intent(
                account, amount=amount, currency=currency, customer=customer, metadata=metadata
            )
            method = payment_methods.get_or_create(account, payment_method, param="payment_method")
            payments.confirm(account, intent, method)
            return self._rendered("payment_intent", intent["id"])

    def pay_partially(self, subscription: str, amount: int) -> Json:
        """Pay a part of the latest invoice by a separate payment; return the payment intent."""
        account = self._account
        with account.change():
            invoice = self._latest_invoice(subscription)
            intent = payments.new_payment_intent(
                account, amount=amount, currency=invoice["currency"], customer=invoice["customer"]
            )
            method = payment_methods.get_or_create(account, GOOD_CARD, param="payment_method")
            billing.attach_payment(account, invoice, payments.confirm(account, intent, method))
            return self._rendered("payment_intent", intent["id"])

    def delete_customer(self, customer: str) -> Json:
        """Delete a customer in the Dashboard; return its tombstone (`deleted: true`)."""
        with self._account.change():
            return customers.delete_customer(self._account, _params(), customer)

    def _updated(self, subscription: str, **changes: Any) -> Json:
        with self._account.change():
            subscription_updates.update_subscription(self._account, _params(**changes), subscription)
            return self._rendered("subscription", subscription)

    def _latest_invoice(self, subscription: str) -> Json:
        return self._account.get("invoice", self._account.get("subscription", subscription)["latest_invoice"])

    def _last_charge(self, subscription: str) -> Json:
        customer = self._account.get("subscription", subscription)["customer"]
        for invoice in self._account.owned("invoice", customer):
            if invoices.subscription_of(self._account, invoice)["id"] != subscription:
                continue
            intent = invoices.payment_intent_of(self._account, invoice)
            if intent is not None and intent["status"] == "succeeded":
                return self._account.get("charge", intent["latest_charge"])
        raise StripeApiError(f"No payment of {subscription} has succeeded.")

    def _last_charge_of(self, customer: str) -> Json:
        for charge in self._account.owned("charge", customer):
            if charge["status"] == "succeeded":
                return charge
        raise StripeApiError(f"No payment of {customer} has succeeded.")

    def _rendered(self, kind: str, identifier: str) -> Json:
        return render(self._account, self._account.get(kind, identifier))


def _params(**values: Any) -> Params:
    """Return values as the parameters of a request: strings at every leaf, without those that are None."""
    return Params({name: _as_strings(value) for name, value in values.items() if value is not None})


def _as_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_strings(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_strings(inner) for inner in value]
    return str(value)
