"""Ordering keys of all messages about an address, a number or an application, whatever its spelling.

Rate limits count by the normal form. Two spellings with two ordering keys would be handled at the same time.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from typing import Any, Final, get_args

import idna
import phonenumbers
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from services.auth.accounts.api_keys import id_of
from services.auth.accounts.models import uuid_text
from services.gateway import accounts, phone
from services.gateway.endpoint import OrderingKey
from services.gateway.methods import METHODS
from shared.email_addresses import normal_email
from shared.errors import Refusal
from shared.messages import MESSAGES, Command, Message
from shared.messages.auth.accounts import UpdateApplicationUser, UpdateOwner
from shared.messages.auth.phone import RegisterPhoneUser
from shared.messages.mailer.suppressions import LiftSuppression
from shared.messages.types import Sealed
from shared.phone_numbers import PhoneNumber
from shared.sealing import Sealer

SEALER: Final = Sealer({"k": bytes(32)})
FIELDS: Final = {
    "email": "address",
    "identifier_value": "address",
    "recipient": "address",
    "phone_number": "number",
    "apikey": "key",
    "uuid": "id",
    "owneruuid": "id",
}
"""Fields of requests that identify a person or an application in more than one spelling."""
ORDERED_OTHERWISE: Final[dict[type[Message], str]] = {
    LiftSuppression: "no limit, and the entry's version decides",
    UpdateOwner: "by the owner's ID",
    UpdateApplicationUser: "by the token",
    RegisterPhoneUser: "by the nonce; the number's guesses are held by the limit",
}
"""Commands with an address or a number that are not ordered by it, with the reason."""
OPERATIONS: Final[dict[type[Message], list[OrderingKey]]] = {}
for _methods in METHODS.values():
    for _method in _methods.values():
        if _method.message is not None:
            OPERATIONS.setdefault(_method.message, []).append(_method.ordering_key)
for _route in (*accounts.ROUTES, *accounts.OLD_CLIENT_ROUTES, *phone.ROUTES, phone.TEST_LOGIN):
    OPERATIONS.setdefault(_route.message, []).append(_route.ordering_key)

ABOUT_SOMEBODY: Final = [
    (kind, name) for kind in OPERATIONS if issubclass(kind, Command) for name in kind.model_fields if name in FIELDS
]
KEYED: Final = [
    pytest.param(kind, name, id=f"{kind.__name__}-{name}")
    for kind, name in ABOUT_SOMEBODY
    if FIELDS[name] in {"address", "number"} and kind not in ORDERED_OTHERWISE
]


def message(kind: type[Message], **values: str) -> Message:
    """A message whose other fields have the value ``x``."""
    fields: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        sealed = Sealed in (field.annotation, *get_args(field.annotation))
        value = values.get(name, "x")
        fields[name] = Sealed.of(value) if sealed else value
    return kind.model_construct(**fields)


def keys_of(kind: type[Message], **values: str) -> list[str]:
    return [ordering_key(message(kind, **values), SEALER) for ordering_key in OPERATIONS[kind]]


def normal(field: str, text: str) -> str | None:
    """The form by which auth finds and counts; None if auth refuses the text."""
    with suppress(Refusal):
        match FIELDS[field]:
            case "address":
                return normal_email(text, test_domains=True)
            case "number":
                return PhoneNumber.parse(text).e164
            case "key":
                return str(id_of(text))
            case "id":
                return uuid_text(text, field)
    return None


LABELS: Final = ("example", "b\u00fccher", "stra\u00dfe", "\u4f8b\u3048", "xn--bcher-kva", "getbeak", "caf\u00e9")
ENDS: Final = ("com", "app", "ch", "test", "\u30c6\u30b9\u30c8")


def full_width(character: str) -> str:
    return chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character


def bold(character: str) -> str:
    """The character in Unicode's mathematical alphabet, which NFKC maps to the ASCII letter."""
    return chr(0x1D41A + ord(character) - ord("a")) if "a" <= character <= "z" else character


def circled(character: str) -> str:
    return chr(0x24D0 + ord(character) - ord("a")) if "a" <= character <= "z" else character


CHANGES: Final = (
    str,
    str.upper,
    full_width,
    bold,
    circled,
    lambda character: unicodedata.normalize("NFD", character),
    lambda character: {".": "\u3002"}.get(character, character),
    lambda character: {".": "\uff0e"}.get(character, character),
    lambda character: {".": "\uff61"}.get(character, character),
)
AROUND: Final = st.sampled_from(["", " ", "\n", "\u00a0", "\ufeff", "\u200b", "\u202a", "\u3000", "\t\r\n"])


def written(text: str, draw: Any, changes: Any) -> str:
    return "".join(draw(changes)(character) for character in text)


@st.composite
def addresses(draw: Any) -> tuple[str, str]:
    """Two spellings of one address."""
    local = draw(st.from_regex(r"[a-z][a-z0-9]{0,5}([.+_-][a-z]{1,3}){0,2}", fullmatch=True))
    domain = f"{draw(st.sampled_from(LABELS))}.{draw(st.sampled_from(ENDS))}"

    def spelling() -> str:
        name = draw(st.sampled_from([domain, idna.encode(domain, uts46=True).decode()]))
        typed = written(local, draw, st.sampled_from([str, str.upper])) + "@"
        return draw(AROUND) + typed + written(name, draw, st.sampled_from(CHANGES)) + draw(AROUND)

    return spelling(), spelling()


@st.composite
def numbers(draw: Any) -> tuple[str, str]:
    """Two spellings of one number."""
    country = draw(st.sampled_from(["CH", "DE", "US", "MX", "IT", "AR", "GB"]))
    number = phonenumbers.example_number_for_type(country, phonenumbers.PhoneNumberType.MOBILE)
    assert number is not None
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    spaced = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    national = spaced.replace(" ", " (0)", 1)
    forms = [e164, spaced, e164.removeprefix("+"), "00" + e164.removeprefix("+"), national, e164.replace("+52", "+521")]
    others = (str, full_width, lambda each: chr(0x660 + int(each)) if each.isdecimal() and each.isascii() else each)

    def spelling() -> str:
        form = draw(st.sampled_from(forms))
        return draw(AROUND) + written(form, draw, st.sampled_from(others)) + draw(AROUND)

    return spelling(), spelling()


SPELLINGS: Final = {"address": addresses(), "number": numbers()}
SIXTY: Final = [
    *(f"victim{at}{domain}" for at in ("@",) for domain in ("EXAMPLE.com", "example.COM", "eXaMpLe.com")),
    *("victim@" + "example.com"[:n] + "".join(map(full_width, "example.com"[n:])) for n in range(11)),
    *("".join(c.upper() if n >> i & 1 else c for i, c in enumerate("victim")) + "@example.com" for n in range(46)),
]
"""Spellings of one address that once let sixty guesses be handled at the same time."""


@pytest.mark.parametrize(("kind", "field"), KEYED)
@given(data=st.data())
def test_spellings_with_one_normal_form_have_one_ordering_key(kind: type[Message], field: str, data: Any) -> None:
    one, other = data.draw(SPELLINGS[FIELDS[field]])
    form = normal(field, one)
    assume(form is not None and form == normal(field, other))
    assert keys_of(kind, **{field: one}) == keys_of(kind, **{field: other}) == keys_of(kind, **{field: str(form)})


@pytest.mark.parametrize(("kind", "field"), KEYED)
def test_another_person_has_another_ordering_key(kind: type[Message], field: str) -> None:
    someone, other = {"address": ("a@example.com", "b@example.com"), "number": ("+41791234567", "+41791234568")}[
        FIELDS[field]
    ]
    keys = keys_of(kind, **{field: someone})
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys), "a readable or empty ordering key"
    assert set(keys).isdisjoint(keys_of(kind, **{field: other}))


@pytest.mark.parametrize(("kind", "field"), [each for each in KEYED if FIELDS[str(each.values[1])] == "address"])
def test_sixty_spellings_of_an_address_have_one_ordering_key(kind: type[Message], field: str) -> None:
    assert {normal(field, text) for text in SIXTY} == {"victim@example.com"}
    assert len({key for text in SIXTY for key in keys_of(kind, **{field: text})}) == 1


@pytest.mark.parametrize(
    ("kind", "field", "one", "other"),
    [
        pytest.param(kind, name, one, other, id=f"{kind.__name__}-{name}")
        for kind, name in ABOUT_SOMEBODY
        for one, other in {
            "key": [("2YP47A5-YEWM1FG-MET9XB1-N6DN56N", "2yp47a5-yewmlfg-metgxbi-n6dn56n".replace("metgxb", "met9xb"))],
            "id": [("00AB0000-0000-4000-8000-00000000CDEF", "00ab0000-0000-4000-8000-00000000cdef")],
        }.get(FIELDS[name], [])
    ],
)
def test_spellings_of_a_key_or_id_have_one_ordering_key(kind: type[Message], field: str, one: str, other: str) -> None:
    assert normal(field, one) == normal(field, other) is not None
    assert keys_of(kind, **{field: one}) == keys_of(kind, **{field: other})


def test_every_field_with_an_address_or_number_is_known() -> None:
    """A field that a later message adds must be added to ``FIELDS``, so that the tests above cover it."""
    suspicious = re.compile(r"mail|address|phone|recipient|identifier_value|msisdn|uuid|apikey")
    named = {name for kind in OPERATIONS for name in kind.model_fields if suspicious.search(name)}
    assert named - FIELDS.keys() == {"sender_address", "support_address"}, "of a client's mails"
    assert {kind for kind, _ in ABOUT_SOMEBODY} >= ORDERED_OTHERWISE.keys()
    assert len(MESSAGES) > len(OPERATIONS)


@given(st.text(), st.text())
@example("no address", " NO ADDRESS ")
def test_any_text_has_an_ordering_key(one: str, other: str) -> None:
    for kind, name in ABOUT_SOMEBODY:
        keys = keys_of(kind, **{name: one})
        if normal(name, one) is not None and normal(name, one) == normal(name, other):
            assert keys == keys_of(kind, **{name: other})
