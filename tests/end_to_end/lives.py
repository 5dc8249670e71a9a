"""Somebody who does with Nest all that a person can do."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from services.embedded.demo import CLIENT_ID
from shared.bus.producer import Producer
from shared.mail import unsubscribe_token
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.end_to_end.test_mail_notices import delivery, tell
from tests.stack import Login, Stack, eventually

OPERATORS_IP: Final = "198.51.100.9"


async def ask(nest: Stack, method: str, **body: Any) -> Any:
    """An operator's call; its answer."""
    answer = await nest.call(method, body, **nest.internal, x_forwarded_for=OPERATORS_IP)
    assert answer.status_code in {200, 204}, answer.text
    return answer.json() if answer.content else None


async def once(
    nest: Stack, process: dict[str, Any], holds: Callable[[dict[str, Any]], bool], *, within: float = 60
) -> dict[str, Any]:
    """A process, once something holds of it. A call that Nest is too busy for is made again."""

    async def shown() -> Any:
        answer = await nest.call("get_user_process", {"process_id": process["id"]}, **nest.internal)
        if answer.status_code in {503, 504}:
            return None
        now = answer.json()
        return now if holds(now) else None

    whole: dict[str, Any] = await eventually(shown, within=within, what="the process")
    return whole


async def done(nest: Stack, process: dict[str, Any]) -> dict[str, Any]:
    """A process, once it is done."""
    return await once(nest, process, lambda now: bool(now["state"] == "done"))


def waits(process: dict[str, Any]) -> dict[str, str | None]:
    """The services that are not done, and whom each waits for outside of Nest."""
    return {part["service"]: part["waits_for"] for part in process["services"] if part["done_at"] is None}


@dataclass
class Person:
    """Somebody, and what they hold.

    Attributes:
        email: their address.
        number: E.164.
        ip: where they are, if the gateway believes it.
        first_name: as they register with their phone; ``last_name`` too.
        user_id: who they are by the address; ``phone_user_id`` by the number.
        tokens: of their last login.
        open_link: of a login that they have ordered and not redeemed, with its code.
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
    def known_by(self) -> list[str]:
        """What must not be readable: the address, the number as all write it and as the country does, names, the IP."""
        national = self.number.removeprefix("+41")
        spaced = f"{national[:2]} {national[2:5]} {national[5:7]} {national[7:]}"
        return [self.email, national, spaced, self.first_name, self.last_name, self.ip]

    @contextmanager
    def at_home(self, nest: Stack) -> Iterator[None]:
        """All that is called meanwhile comes from where they are, but for operators' calls."""
        nest.http.headers["x-forwarded-for"] = self.ip
        try:
            yield
        finally:
            del nest.http.headers["x-forwarded-for"]

    async def come_for_a_trial(self, nest: Stack) -> None:
        """By a trial's link; and they log in."""
        device = {"platform": "mac", "beak_id": f"beak-{self.email}", "fingerprint": f"print-{self.email}"}
        answer = await nest.call("create_trial_and_magic_link", Login(self.email).order(device=device))
        assert answer.status_code == 204, answer.text
        await nest.mail(self.email, count=2)
        await nest.stripe.webhooks.drain(60)
        self.tokens = await nest.log_in(self.email)
        self.user_id = self.tokens["user_id"]

    async def log_in_in_every_way(self, nest: Stack) -> None:
        """With wrong guesses, stolen tokens, and an address in capitals."""
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
        stolen = await nest.call("authenticate_user", used)
        assert stolen.json()["code"] == "token_used"
        await nest.mail(self.email, count=mails + 1)
        order = await nest.call("send_magic_link", Login(self.email.upper()).order())
        assert order.status_code == 204

    async def pay(self, nest: Stack) -> None:
        """For a subscription after the trial, and want the money back; the bank says no."""
        [trial] = [each for each in nest.stripe.objects("subscription") if self.is_theirs(nest, each["customer"])]
        nest.stripe.simulate.cancel(trial["id"], at="now")
        await nest.stripe.webhooks.drain(60)
        made = nest.stripe.simulate.checkout(nest.environment["NEST_STRIPE_TRIAL_PRICE"], email=self.email)
        await nest.stripe.webhooks.drain(60)
        dispute = nest.stripe.simulate.dispute(made["id"])
        nest.stripe.simulate.close_dispute(dispute["id"], "lost")
        nest.stripe.simulate.decline(made["customer"])
        await nest.stripe.webhooks.drain(60)

        async def recorded() -> Any:
            disputes = (await ask(nest, "list_disputes", user_id=self.user_id))["disputes"]
            return [each for each in disputes if each["status"] == "lost"]

        await eventually(recorded, what="the dispute")

    def is_theirs(self, nest: Stack, customer: str) -> bool:
        """Whether a customer of Stripe's has their address."""
        return bool(nest.stripe.object("customer", customer).get("email") == self.email)

    async def choose(self, nest: Stack) -> None:
        """What news they get, and which of them they don't want to see again."""
        bearer = f"bearer {self.tokens['access_token']}"
        for level in ("none", "general"):
            body = {"user_id": self.user_id, "level": level}
            answer = await nest.call("set_marketing_consent", body, authorization=bearer)
            assert answer.status_code == 204, answer.text
        [item, *_] = await ask(nest, "list_news_items", client_id=CLIENT_ID)
        await ask(nest, "dismiss_news_item", user_id=self.user_id, news_item_id=item["id"])

    async def use_the_phone(self, nest: Stack) -> None:
        """Guess a code wrong, register, and log in."""
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
        texts = await eventually(
            lambda: len(nest.inbox.arrivals(self.number)) > already and nest.inbox.arrivals(self.number),
            what="the text",
        )
        return re.findall(r"#(\d{6})", texts[0].text)[-1], nonce

    async def leave_traces(self, nest: Stack, mongo_client: Any) -> None:
        """In what others say of them: mail servers, operators, and whatever writes what nobody can read."""
        sent = await delivery(nest, mongo_client, self.email, "magic-link")
        self.message_id = sent["messageId"]
        assert await tell(nest, "delivered", self.message_id) == 200
        welcome = await delivery(nest, mongo_client, self.email, "welcome-trial")
        said = f"550 5.1.1 <{self.email}>: nobody here"
        assert await tell(nest, "bounced", welcome["messageId"], status="5.1.1", reason=said) == 200
        await ask(nest, "find_user", identifier_type="email", identifier_value=self.email)
        await ask(nest, "find_user", identifier_type="phone", identifier_value=self.number)
        await ask(nest, "list_deliveries", recipient=self.email)
        await say(nest, "mailer.commands", self.email.encode(), wire="mailer.nobody-knows", about=self.email)
        await say(nest, "stripe.webhooks", f'{{"customer_email": "{self.email}"}}'.encode(), wire="stripe.unheard-of")

        async def dead() -> bool:
            letters = (await ask(nest, "list_dead_letters"))["letters"]
            return {letter["type"] for letter in letters} >= {"mailer.nobody-knows", "stripe.unheard-of"}

        await eventually(dead, what="the dead letters")

    async def order_a_link(self, nest: Stack) -> None:
        """And leave it in the mail."""
        login = Login(self.email)
        self.open_link = (login, await nest.code(login))

    def unsubscribe_path(self, nest: Stack) -> str:
        """Of the link beside a mail that they have."""
        sealer = Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"]))
        return f"/unsubscribe/{unsubscribe_token(sealer, self.user_id)}"


async def say(nest: Stack, topic: str, value: bytes, *, wire: str, about: str = "", key: bytes = b"k") -> None:
    """Put a record on a topic, as something outside of Nest may."""
    producer = Producer(nest.environment["NEST_KAFKA_BOOTSTRAP"], prefix=nest.environment["NEST_TOPIC_PREFIX"])
    await producer.start()
    try:
        headers = [("type", wire.encode()), *([("about", about.encode())] if about else [])]
        await producer.send_record(topic, value, headers, key=key)
    finally:
        await producer.stop()
