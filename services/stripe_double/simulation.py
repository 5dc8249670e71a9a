"""What do customers do? Verbs that play their side: checkout, cards, the portal, the bank."""

from typing import Any

from services.stripe_double import (
    billing,
    cancellations,
    collection,
    customers,
    disputes,
    events,
    invoices,
    partial,
    payment_methods,
    payments,
    refunds,
    signup,
    subscriptions,
)
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.presentation import present

GOOD_CARD = "pm_card_visa"
BAD_CARD = "pm_card_chargeCustomerFail"


class Simulation:
    """Plays what happens without the merchant's program calling: each verb is one change, with its events.

    Every verb returns the object it is about as the API would show it, and raises `StripeApiError` where
    Stripe would refuse.

    Args:
        account: Whose customers.
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
        quantity: int = 1,
    ) -> Json:
        """A person subscribes on a Checkout page; returns the subscription.

        The subscription begins incomplete and becomes active when the card is charged, so two events
        tell of it. Checkout makes a customer, without metadata, unless one is given.

        Args:
            price: What is bought.
            email: Of the new customer.
            customer: One that exists.
            trial_days: A free trial.
            payment_method: What is paid with, kept as the default; None leaves the page without paying.
            coupon: A discount.
            promotion_code: The id of a promotion code.
            metadata: Of the subscription.
            quantity: How many.
        """
        discount = {"coupon": coupon} if coupon else {"promotion_code": promotion_code} if promotion_code else None
        with self._account.change():
            if customer is None:
                customer = customers.create(self._account, _params(email=email))["id"]
            made = signup.create(
                self._account,
                _params(
                    customer=customer,
                    items=[{"price": price, "quantity": quantity}],
                    payment_behavior="default_incomplete",
                    trial_period_days=trial_days,
                    discounts=[discount] if discount else None,
                    metadata=metadata,
                ),
            )
            if payment_method is not None:
                made = self._paid(made, payment_method)
            return self._shown("subscription", made["id"])

    def _paid(self, subscription: Json, payment_method: str) -> Json:
        account = self._account
        method = payment_methods.attached(account, payment_method, subscription["customer"])
        customers.prefer(account, subscription["customer"], method["id"])
        before = account.get("subscription", subscription["id"])
        account.update(before, default_payment_method=method["id"], _quiet=True)
        invoice = account.get("invoice", before["latest_invoice"])
        if invoice["status"] == "open":
            collection.collect(account, invoice, method, automatic=False)
        after = account.update(account.get("subscription", before["id"]), _quiet=False)
        return events.changed(account, "customer.subscription.updated", before, after)

    def change_card(self, customer: str, payment_method: str) -> Json:
        """A customer enters another card in the portal; it becomes the default of all; returns the customer."""
        with self._account.change():
            method = payment_methods.attached(self._account, payment_method, customer)
            for subscription in self._account.owned("subscription", customer):
                without = self._account.update(subscription, default_payment_method=None)
                events.changed(self._account, "customer.subscription.updated", subscription, without)
            return customers.prefer(self._account, customer, method["id"])

    def decline(self, customer: str) -> Json:
        """From now on the customer's card declines; returns the customer."""
        return self.change_card(customer, BAD_CARD)

    def recover(self, customer: str) -> Json:
        """The customer enters a good card and pays what is open; returns the customer."""
        shown = self.change_card(customer, GOOD_CARD)
        with self._account.change():
            for invoice in reversed(self._account.owned("invoice", customer)):
                if invoice["status"] == "open":
                    collection.collect(self._account, invoice, automatic=False)
        return shown

    def retry_payment(self, subscription: str) -> Json:
        """The customer tries to pay the latest, open invoice with the card there is; returns the subscription."""
        with self._account.change():
            collection.collect(self._account, self._latest_invoice(subscription), automatic=False)
            return self._shown("subscription", subscription)

    def authenticate(self, subscription: str) -> Json:
        """The customer passes the bank's check that a payment waits for; returns the subscription."""
        with self._account.change():
            invoice = self._latest_invoice(subscription)
            intent = invoices.payment_intent_of(self._account, invoice)
            if intent is None or intent["status"] != "requires_action":
                raise StripeApiError("No payment of this subscription waits for the customer.")
            method = self._account.get("payment_method", intent["payment_method"])
            collection.pay(self._account, intent, method, authenticated=True)
            return self._shown("subscription", subscription)

    def cancel(self, subscription: str, *, at: str = "period_end") -> Json:
        """A customer cancels in the portal; returns the subscription.

        Args:
            subscription: Which.
            at: `period_end`; `now`; or `date`, by which the portal of flexible billing leaves
                `cancel_at_period_end` false and sets `cancel_at` alone.
        """
        with self._account.change():
            if at == "now":
                cancellations.cancel(self._account, _params(), subscription)
            else:
                wanted = {"cancel_at_period_end": "true"}
                if at == "date":
                    end = billing.period_end(self._account.get("subscription", subscription))
                    wanted = {"cancel_at": str(end)}
                subscriptions.update(self._account, _params(**wanted), subscription)
            return self._shown("subscription", subscription)

    def reactivate(self, subscription: str) -> Json:
        """A customer takes a planned cancellation back; returns the subscription."""
        return self._updated(subscription, cancel_at_period_end="false")

    def pause_collection(self, subscription: str, behavior: str = "void") -> Json:
        """The merchant stops collecting from the Dashboard: the status stays; returns the subscription."""
        return self._updated(subscription, pause_collection={"behavior": behavior})

    def resume_collection(self, subscription: str) -> Json:
        """The merchant collects again; returns the subscription."""
        return self._updated(subscription, pause_collection="")

    def pause(self, subscription: str) -> Json:
        """The subscription is paused: no periods, no invoices; returns it."""
        with self._account.change():
            cancellations.pause(self._account, _params(), subscription)
            return self._shown("subscription", subscription)

    def resume(self, subscription: str) -> Json:
        """A paused subscription goes on, with a new period; returns it."""
        with self._account.change():
            cancellations.resume(self._account, _params(), subscription)
            return self._shown("subscription", subscription)

    def dispute(
        self,
        subscription: str,
        *,
        reason: str = "fraudulent",
        amount: int | None = None,
        inquiry: bool = False,
    ) -> Json:
        """The customer asks the bank for the money of the last paid invoice; returns the dispute."""
        with self._account.change():
            charge = self._last_charge(subscription)
            return disputes.open_dispute(self._account, charge, reason=reason, amount=amount, inquiry=inquiry)

    def close_dispute(self, dispute: str, status: str = "lost") -> Json:
        """The bank decides: `won`, `lost`, `prevented`, or `warning_closed` for an inquiry; returns the dispute."""
        with self._account.change():
            return disputes.close(self._account, self._account.get("dispute", dispute), status)

    def refund(self, subscription: str, *, amount: int | None = None) -> Json:
        """The merchant gives the last payment back from the Dashboard; returns the refund."""
        with self._account.change():
            return refunds.refund(self._account, self._last_charge(subscription), amount=amount)

    def fail_refund(self, refund: str) -> Json:
        """The customer's bank sends a refund back; returns the refund."""
        with self._account.change():
            return refunds.fail(self._account, self._account.get("refund", refund))

    def escalate_dispute(self, dispute: str) -> Json:
        """The bank makes a chargeback of an inquiry; returns the dispute."""
        with self._account.change():
            return disputes.escalate(self._account, self._account.get("dispute", dispute))

    def pay_once(
        self,
        amount: int,
        *,
        currency: str = "usd",
        customer: str | None = None,
        payment_method: str = GOOD_CARD,
        metadata: dict[str, str] | None = None,
    ) -> Json:
        """Somebody pays for something that is no subscription; returns the payment intent, paid or declined."""
        account = self._account
        with account.change():
            intent = payments.make(account, amount=amount, currency=currency, customer=customer, metadata=metadata)
            method = payment_methods.found(account, payment_method, param="payment_method")
            payments.confirm(account, intent, method)
            return self._shown("payment_intent", intent["id"])

    def pay_partially(self, subscription: str, amount: int) -> Json:
        """A customer pays a part of the latest invoice, by a payment of its own; returns that payment's intent."""
        account = self._account
        with account.change():
            invoice = self._latest_invoice(subscription)
            intent = payments.make(account, amount=amount, currency=invoice["currency"], customer=invoice["customer"])
            method = payment_methods.found(account, GOOD_CARD, param="payment_method")
            partial.attach(account, invoice, payments.confirm(account, intent, method))
            return self._shown("payment_intent", intent["id"])

    def delete_customer(self, customer: str) -> Json:
        """The merchant deletes a customer from the Dashboard; returns what is left of it."""
        with self._account.change():
            return customers.delete(self._account, _params(), customer)

    def _updated(self, subscription: str, **wanted: Any) -> Json:
        with self._account.change():
            subscriptions.update(self._account, _params(**wanted), subscription)
            return self._shown("subscription", subscription)

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

    def _shown(self, kind: str, identifier: str) -> Json:
        return present(self._account, self._account.get(kind, identifier))


def _params(**values: Any) -> Params:
    """Spells values as a call would: texts, without those that are None."""
    return Params({name: _spelled(value) for name, value in values.items() if value is not None})


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _spelled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_spelled(inner) for inner in value]
    return str(value)
