"""The card form of all pages: Stripe's test cards by number (docs.stripe.com/testing)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from services.stripe_double.pages.pages import PAGES


@dataclass(frozen=True)
class TestCard:
    """A test card: its payment method, or the error that it causes; and its description on the pages, if listed."""

    __test__ = False  # for pytest

    method: str | None
    text: str | None = None
    error: str = ""


DECLINED = "Your card was declined."
CARDS = {
    "4242424242424242": TestCard("pm_card_visa", "succeeds"),
    "4000002760003184": TestCard("pm_card_authenticationRequired", "asks for 3D Secure"),
    "4000000000000002": TestCard("pm_card_chargeDeclined", "is declined"),
    "4000000000009995": TestCard("pm_card_chargeDeclinedInsufficientFunds", "has insufficient funds"),
    "4000000000000341": TestCard("pm_card_chargeCustomerFail", "can be saved, then each payment is declined"),
    "4000000000000259": TestCard("pm_card_createDispute", "succeeds, then the payment is disputed"),
    "4000000000001976": TestCard("pm_card_createDisputeInquiry"),
    "4000000000000069": TestCard("pm_card_chargeDeclinedExpiredCard"),
    "4000000000009987": TestCard("pm_card_chargeDeclinedLostCard"),
    "4000000000000127": TestCard(None, error="Your card's security code is incorrect."),
    "4000000000000119": TestCard(
        None, error="An error occurred while processing your card. Try again in a little bit."
    ),
    "4000002500003155": TestCard("pm_card_authenticationRequired"),
    "4000056655665556": TestCard("pm_card_visa_debit"),
    "5555555555554444": TestCard("pm_card_mastercard"),
    "371449635398431": TestCard("pm_card_amex"),
    "6011000990139424": TestCard("pm_card_discover"),
}
"""Stripe's test cards. Cards of one behavior differ in brand only."""
_EXPIRY = re.compile(r"(0?[1-9]|1[0-2])\s*/?\s*(\d{2}|20\d{2})")
_CVC = re.compile(r"\d{3,4}")


class InvalidCard(Exception):
    """The card form is not accepted; the text is one sentence for the person."""


def read_card(form: dict[str, str], now: int) -> str:
    """Return the test payment method of a card form: `card`, and `expiry` and `cvc` if they are sent.

    Args:
        form: The fields.
        now: The account's time in Unix seconds.

    Raises:
        InvalidCard: A field is invalid, or the number is no test card's.
    """
    number = re.sub(r"[\s-]", "", form.get("card", ""))
    card = CARDS.get(number)
    if card is None:
        if _passes_luhn(number):
            raise InvalidCard("Your card was declined: this page takes only the test cards listed below.")
        raise InvalidCard("Your card number is invalid.")
    if "expiry" in form:
        _check_expiry(form["expiry"], now)
    if "cvc" in form and not _CVC.fullmatch(form["cvc"]):
        raise InvalidCard("Your card's security code is incomplete.")
    if card.method is None:
        raise InvalidCard(card.error)
    return card.method


def _passes_luhn(number: str) -> bool:
    if not re.fullmatch(r"[0-9]{12,19}", number):
        return False
    digits = [int(digit) for digit in reversed(number)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _check_expiry(text: str, now: int) -> None:
    found = _EXPIRY.fullmatch(text)
    if found is None:
        raise InvalidCard("Your card's expiration date is incomplete.")
    month, year = int(found[1]), int(found[2][-2:]) + 2000
    today = datetime.fromtimestamp(now, UTC)
    if (year, month) < (today.year, today.month):
        raise InvalidCard("Your card's expiration date is in the past.")


def spaced(number: str) -> str:
    """Return a card number in groups of four digits."""
    return re.sub(r"(\d{4})(?=\d)", r"\1 ", number)


PAGES.environment.globals["test_cards"] = [
    (spaced(number), card.text) for number, card in CARDS.items() if card.text is not None
]
