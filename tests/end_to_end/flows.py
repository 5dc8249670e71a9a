"""Calls and flows shared by the end-to-end tests, and a person who uses every feature."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import jwt
from pymongo import MongoClient

from services.embedded.demo import CLIENT_ID
from services.embedded.mail_inbox import Arrival
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.mail import unsubscribe_token
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.stack import MAIL_WEBHOOK_SECRET, Login, Stack, code_of, eventually

Mongo = MongoClient[dict[str, Any]]
OPERATORS_IP: Final = "198.51.100.9"


async def operator_call(nest: Stack, method: str, **body: Any) -> Any:
    """Call a method with the internal key and return what it returns; assert that it succeeds."""
    response = await nest.call(method, body, **nest.internal, x_forwarded_for=OPERATORS_IP)
    assert response.status_code in {200, 204}, response.text
    return response.json() if response.content else None


async def post_to_stripe(nest: Stack, path: str, form: dict[str, str]) -> dict[str, Any]:
    """Create or change an object of the Stripe account, as an operator does in Stripe's dashboard, and return it."""
    headers = {"authorization": f"Bearer {nest.environment['NEST_STRIPE_API_KEY']}"}
    async with httpx.AsyncClient(base_url=nest.stripe.url, headers=headers) as stripe:
        response = await stripe.post(path, data=form)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def claims_of(tokens: dict[str, Any]) -> dict[str, Any]:
    """Return the claims of an access token, unverified."""
    claims: dict[str, Any] = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return claims


def sealer_of(nest: Stack) -> Sealer:
    """Return a sealer with the sealing keys of this Nest."""
    return Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"]))


def database(nest: Stack, mongo_client: Mongo, service: str) -> Any:
    """Return the database of a service."""
    return mongo_client[nest.environment["NEST_DATABASE_PREFIX"] + service]


async def process_when(
    nest: Stack, process: dict[str, Any], holds: Callable[[dict[str, Any]], bool], *, within: float = 60
) -> dict[str, Any]:
    """Wait until a condition holds for an export or erasure, and return its state. 503 and 504 are retried."""

    async def state() -> Any:
        response = await nest.call("get_user_process", {"process_id": process["id"]}, **nest.internal)
        if response.status_code in {503, 504}:
            return None
        now = response.json()
        return now if holds(now) else None

    found: dict[str, Any] = await eventually(state, within=within, what="the export or erasure")
    return found


async def finished(nest: Stack, process: dict[str, Any]) -> dict[str, Any]:
    """Wait until an export or erasure is done, and return its state."""
    return await process_when(nest, process, lambda now: bool(now["state"] == "done"))


def unfinished(process: dict[str, Any]) -> dict[str, str | None]:
    """Return the services that are not done, with the vendor that each waits for."""
    return {part["service"]: part["waits_for"] for part in process["services"] if part["done_at"] is None}


async def find_delivery(nest: Stack, mongo_client: Mongo, email: str, template: str) -> dict[str, Any]:
    """Wait for a delivery of a template to an address, and return the newest."""
    hashed = sealer_of(nest).keyed_hash("recipient", email.encode())
    rows = database(nest, mongo_client, "mailer")["deliveries"]
    found: dict[str, Any] = await eventually(
        lambda: rows.find_one({"recipientHash": hashed, "template": template}, sort=[("createdAt", -1)]),
        what=f"a delivery of {template}",
    )
    return found


async def report_mail(nest: Stack, event: str, message_id: str, **more: str) -> int:
    """Report an event of a mail, such as a bounce, as a mail server does, and return the status of the response."""
    body = json.dumps({"event": event, "message_id": message_id, **more}).encode()
    now = int(time.time())
    digest = hmac.new(MAIL_WEBHOOK_SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"nest-signature": f"t={now},v1={digest}"}
    return (await nest.http.post("/1/webhook/mail", content=body, headers=headers)).status_code


def macs_of(nest: Stack) -> RecordMacs:
    """Return what computes and checks the MACs of the records of this Nest."""
    return RecordMacs(sealer_of(nest), prefix=nest.environment["NEST_TOPIC_PREFIX"])


def device_of(name: str) -> dict[str, str]:
    """Return a device of its own for this name."""
    return {"platform": "mac", "beak_id": f"beak-{name}", "fingerprint": f"print-{name}"}


async def order_trial(
    nest: Stack, login: Login, device: dict[str, str] | None = None, *, version: str = "2021-10-06", **fields: Any
) -> Arrival:
    """Order a trial, with further fields, and return the mail with its link; assert the response 204."""
    already = len(nest.inbox.arrivals(login.email))
    body = login.request(device=device or device_of(login.email), **fields)
    response = await nest.call("create_trial_and_magic_link", body, version=version)
    assert response.status_code == 204, response.text
    return await nest.mail(login.email, count=already + 1)


async def redeem_trial(
    nest: Stack, login: Login, device: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """Order a trial as ``order_trial``, log in by its link, and return the tokens."""
    mail = await order_trial(nest, login, device, **options)
    assert any("flow=trial" in link for link in mail.links)
    response = await nest.call("authenticate_user", login.redemption(code_of(mail, login)))
    assert response.status_code == 200, response.text
    tokens: dict[str, Any] = response.json()
    return tokens


def unsubscribe_path(nest: Stack, user_id: str) -> str:
    """Return the path of a user's unsubscribe link."""
    return f"/unsubscribe/{unsubscribe_token(sealer_of(nest), user_id)}"


async def publish(nest: Stack, *records: tuple[bytes, list[tuple[str, bytes]]], topic: str, key: bytes = b"k") -> None:
    """Publish records, each a value with headers, as another release of Nest may."""
    prefix = nest.environment["NEST_TOPIC_PREFIX"]
    producer = Producer(KafkaConnection(nest.environment["NEST_KAFKA_BOOTSTRAP"]), macs=macs_of(nest), prefix=prefix)
    await producer.start()
    try:
        for value, headers in records:
            await producer.send_record(topic, value, headers, key=key)
    finally:
        await producer.stop()


@dataclass
class Person:
    """A person who uses every feature, and what identifies them.

    Attributes:
        email: their address.
        number: their phone number, E.164.
        ip: their IP address, if the gateway trusts the tests as a proxy.
        first_name: registered with the phone number, as is ``last_name``.
        user_id: the user with the address.
        phone_user_id: the user with the phone number.
        tokens: of the last login.
        open_link: a login that was requested and not completed, with its code.
        message_id: of a mail that was sent to them.
    """

    email: str
    number: str = field(default_factory=lambda: f"+4179{secrets.randbelow(10**7):07}")
    ip: str = "203.0.113.77"
    first_name: str = "Adamantia"
    last_name: str = "Lovelock-Öberg"
    user_id: str = ""
    phone_user_id: str = ""
    tokens: dict[str, Any] = field(default_factory=dict)
    open_link: tuple[Login, str] | None = None
    message_id: str = ""

    @property
    def identifying_values(self) -> list[str]:
        """The address, the number in national notation with and without spaces, the names and the IP address."""
        national = self.number.removeprefix("+41")
        spaced = f"{national[:2]} {national[2:5]} {national[5:7]} {national[7:]}"
        return [self.email, national, spaced, self.first_name, self.last_name, self.ip]

    @contextmanager
    def calling_from_own_ip(self, nest: Stack) -> Iterator[None]:
        """Make calls from the person's IP address, except those of operators."""
        nest.http.headers["x-forwarded-for"] = self.ip
        try:
            yield
        finally:
            del nest.http.headers["x-forwarded-for"]

    async def start_trial(self, nest: Stack) -> None:
        """Start a trial with a device, and log in."""
        self.tokens = await redeem_trial(nest, Login(self.email))
        # The link, and the welcome after its redemption.
        await nest.mail(self.email, count=2)
        await nest.stripe.webhooks.drain(60)
        self.tokens = await nest.log_in(self.email)
        self.user_id = self.tokens["user_id"]

    async def log_in_with_mistakes(self, nest: Stack) -> None:
        """Log in after a wrong verifier and a wrong code, reuse a refresh token, request a link in capitals."""
        login = Login(self.email)
        code = await nest.code(login)
        wrong = await nest.call("authenticate_user", login.redemption(code, code_verifier="w" * 43))
        assert wrong.json()["code"] == "incorrect_code_verifier"
        await nest.call("authenticate_user", login.redemption(f"{code}x"))
        first = (await nest.call("authenticate_user", login.redemption(code))).json()
        refresh = {"client_id": CLIENT_ID, "grant_type": "refresh_token"}
        used = {**refresh, "refresh_token": first["refresh_token"]}
        second = (await nest.call("authenticate_user", used)).json()
        await nest.call("authenticate_user", {**refresh, "refresh_token": second["refresh_token"]})
        mails = len(nest.inbox.arrivals(self.email))
        theft = await nest.call("authenticate_user", used)
        assert theft.json()["code"] == "token_used"
        await nest.mail(self.email, count=mails + 1)
        request = await nest.call("send_magic_link", Login(self.email.upper()).request())
        assert request.status_code == 204

    async def pay_and_dispute(self, nest: Stack) -> None:
        """Cancel the trial, subscribe, dispute the payment in vain, and have the next payment declined."""
        [trial] = [each for each in nest.stripe.objects("subscription") if self._owns(nest, each["customer"])]
        nest.stripe.simulate.cancel(trial["id"], at="now")
        await nest.stripe.webhooks.drain(60)
        subscription = nest.stripe.simulate.checkout(nest.environment["NEST_STRIPE_TRIAL_PRICE"], email=self.email)
        await nest.stripe.webhooks.drain(60)
        dispute = nest.stripe.simulate.dispute(subscription["id"])
        nest.stripe.simulate.close_dispute(dispute["id"], "lost")
        nest.stripe.simulate.decline(subscription["customer"])
        await nest.stripe.webhooks.drain(60)

        async def recorded() -> Any:
            disputes = (await operator_call(nest, "list_disputes", user_id=self.user_id))["disputes"]
            return [each for each in disputes if each["status"] == "lost"]

        await eventually(recorded, what="the dispute")

    def _owns(self, nest: Stack, customer: str) -> bool:
        return bool(nest.stripe.object("customer", customer).get("email") == self.email)

    async def consent_and_dismiss(self, nest: Stack) -> None:
        """Change the marketing consent twice, and dismiss a news item."""
        bearer = f"bearer {self.tokens['access_token']}"
        for level in ("none", "general"):
            body = {"user_id": self.user_id, "level": level}
            response = await nest.call("set_marketing_consent", body, authorization=bearer)
            assert response.status_code == 204, response.text
        [item, *_] = await operator_call(nest, "list_news_items", client_id=CLIENT_ID)
        await operator_call(nest, "dismiss_news_item", user_id=self.user_id, news_item_id=item["id"])

    async def use_phone(self, nest: Stack) -> None:
        """Enter a wrong code, register with the phone number, and log in."""
        _, nonce = await self._text(nest)
        await nest.http.post("/verify", json={"code": "000000", "nonce": nonce, "clientid": CLIENT_ID})
        code, nonce = await self._text(nest)
        names = {"first_name": self.first_name, "last_name": self.last_name}
        registered = await nest.http.post(f"/register/{code}/{nonce}", json=names)
        assert registered.status_code == 200, registered.text
        self.phone_user_id = registered.json()["id"]
        code, nonce = await self._text(nest)
        verified = await nest.http.post("/verify", json={"code": code, "nonce": nonce, "clientid": CLIENT_ID})
        assert verified.status_code == 200, verified.text

    async def _text(self, nest: Stack) -> tuple[str, str]:
        already = len(nest.inbox.arrivals(self.number))
        nonce = (await nest.http.post("/init", json={"phone_number": self.number})).text
        text = await nest.mail(self.number, count=already + 1)
        return re.findall(r"#(\d{6})", text.text)[-1], nonce

    async def be_reported_by_others(self, nest: Stack, mongo_client: Mongo) -> None:
        """Appear in reports of mail servers, in queries of operators, and in dead letters."""
        link = await find_delivery(nest, mongo_client, self.email, "magic-link")
        self.message_id = link["messageId"]
        assert await report_mail(nest, "delivered", self.message_id) == 200
        welcome = await find_delivery(nest, mongo_client, self.email, "welcome-trial")
        reason = f"550 5.1.1 <{self.email}>: nobody here"
        assert await report_mail(nest, "bounced", welcome["messageId"], status="5.1.1", reason=reason) == 200
        await operator_call(nest, "find_user", identifier_type="email", identifier_value=self.email)
        await operator_call(nest, "find_user", identifier_type="phone", identifier_value=self.number)
        await operator_call(nest, "list_deliveries", recipient=self.email)
        address = self.email.encode()
        unknown_command = (address, [("type", b"mailer.unknown"), ("about", address)])
        unknown_event = (f'{{"customer_email": "{self.email}"}}'.encode(), [("type", b"stripe.unknown")])
        await publish(nest, unknown_command, topic="mailer.commands")
        await publish(nest, unknown_event, topic="stripe.webhooks")

        async def dead() -> bool:
            letters = (await operator_call(nest, "list_dead_letters"))["letters"]
            return {letter["type"] for letter in letters} >= {"mailer.unknown", "stripe.unknown"}

        await eventually(dead, what="the dead letters")

    async def request_link(self, nest: Stack) -> None:
        """Request a magic link and leave it unused."""
        login = Login(self.email)
        self.open_link = (login, await nest.code(login))
