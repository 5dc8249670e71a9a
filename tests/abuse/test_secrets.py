"""A whole life, and then no secret of it is readable anywhere: in logs, topics, databases, answers, traces, metrics."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest

from services.embedded.demo import CLIENT_ID
from tests.abuse.conftest import Target
from tests.stack import Login, eventually

IDS: Final = ("owner ", "application ")
OF_AUTH: Final = re.compile(r"auth\.(owners|applications|application_users|inbox|commands)\b")
"""Auth keeps owners and applications by their ids, and when one is gone tells itself whose remains are to go too."""
SHORTEST: Final = 6
"""Digits of a phone code. What is shorter stands anywhere by chance."""


def forms(secret: str) -> Iterator[bytes]:
    """How a secret may be written: plain, in base64 wherever in a longer text it stood, for a URL, in JSON, in hex."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for before in range(3):
        # Of a text in the middle of another, the characters at its edges depend on the neighbours.
        encoded = base64.b64encode(b"\0" * before + raw)
        inner = encoded[4 if before else 0 :].rstrip(b"=")[:-1]
        if len(inner) > SHORTEST:
            yield inner
            yield inner.replace(b"+", b"-").replace(b"/", b"_")


class Life:
    """What people do with Nest, and every secret that they hold on the way.

    Attributes:
        secrets: by what they are.
        refusals: the bodies of all answers that were refusals.
    """

    def __init__(self, target: Target) -> None:
        self._nest = target.nest
        self._target = target
        self.secrets: dict[str, str] = {
            "internal key": target.nest.internal_key,
            "sealing key": target.nest.environment["NEST_SEALING_KEYS"].partition(":")[2],
            "Stripe's key": target.nest.environment["NEST_STRIPE_API_KEY"],
            "webhook secret": target.nest.environment["NEST_STRIPE_WEBHOOK_SECRETS"],
        }
        self.refusals: list[bytes] = []

    async def post(self, path: str, body: Any, verb: str = "POST", **headers: str) -> httpx.Response:
        """A call, whatever comes of it."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self._nest.http.request(verb, path, content=content, headers=headers)
        assert answer.status_code < 500, (path, answer.text)
        if answer.status_code >= 400:
            self.refusals.append(answer.content)
        return answer

    async def rpc(self, method: str, body: Any, **headers: str) -> httpx.Response:
        """A call of a method."""
        return await self.post(f"/1/2021-10-06/{method}", body, **headers)

    def keep(self, **held: str) -> None:
        """Hold secrets."""
        for name, secret in held.items():
            self.secrets[f"{name.replace('_', ' ')} {len(self.secrets)}"] = secret

    def keep_tokens(self, tokens: dict[str, Any]) -> None:
        """Hold an access and a refresh token: whole, and what can't be computed of each."""
        self.keep(
            access_token=tokens["access_token"],
            signature=tokens["access_token"].rpartition(".")[2],
            refresh_token=tokens["refresh_token"],
            refresh_key=tokens["refresh_token"].rpartition(".")[2],
        )

    async def log_in_and_refresh(self, email: str) -> None:
        """By a link; then the tokens go their way, until a thief shows one."""
        login = Login(email)
        code = await self._nest.code(login)
        self.keep(code=code, key=code.partition(".")[2], verifier=login.verifier)
        await self.rpc("authenticate_user", login.redemption(code, code_verifier=self._typed("verifier")))
        await self.rpc("authenticate_user", login.redemption(f"{code}x"))
        tokens = (await self.rpc("authenticate_user", login.redemption(code))).json()
        self.keep_tokens(tokens)
        await self.rpc("authenticate_user", login.redemption(code))
        refresh = {"client_id": CLIENT_ID, "grant_type": "refresh_token"}
        first = await self.rpc("authenticate_user", {**refresh, "refresh_token": tokens["refresh_token"]})
        self.keep_tokens(first.json())
        second = await self.rpc("authenticate_user", {**refresh, "refresh_token": first.json()["refresh_token"]})
        self.keep_tokens(second.json())
        stolen = await self.rpc("authenticate_user", {**refresh, "refresh_token": tokens["refresh_token"]})
        assert stolen.json()["code"] == "token_used"
        await self.rpc(
            "get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {second.json()['access_token']}"
        )

    async def start_a_trial(self, email: str) -> None:
        """With Stripe's webhooks behind it."""
        device = {"platform": "mac", "beak_id": f"beak-{email}", "fingerprint": f"print-{email}"}
        await self.rpc("create_trial_and_magic_link", Login(email).order(device=device))
        await self._nest.mail(email, count=2)
        await self._nest.stripe.webhooks.drain()

    async def mistake_every_field(self) -> None:
        """Wrong shapes and places that don't exist, with secrets in all of them.

        A secret in a field that is none, where it has the right shape (an address, a client's id), can't be told from
        what belongs there.
        """
        typed = self._typed("field")
        await self.rpc("authenticate_user", {"client_id": CLIENT_ID, "grant_type": "password", "code": [typed]})
        await self.rpc("authenticate_user", {"client_id": "", "grant_type": "authorization_code", "code": typed})
        await self.rpc("authenticate_user", {"client_id": CLIENT_ID, "grant_type": "refresh_token", "code": typed})
        await self.rpc("authenticate_user", {"refresh_token": {"a": typed}, "password": typed})
        await self.rpc("authenticate_user", f'{{"refresh_token": "{typed}'.encode())
        await self.rpc("authenticate_user", b'{"code": "' + typed.encode() + b'\xff"}')
        await self.rpc("send_magic_link", {**Login("eve@example.com").order(), "code_challenge": typed})
        await self.rpc(typed, {})
        await self.post(f"/{typed}/{typed}", {})
        await self.post("/1/webhook/stripe", {"id": typed}, **{"stripe-signature": f"t=1,v1={typed}"})
        await self.post(f"/1/webhook/{typed}", {})
        for scheme in ("bearer", "internal", "basic", typed):
            await self.rpc("get_user", {"user_id": "user_1"}, authorization=f"{scheme} {self._typed('authorization')}")
        forged = self._forged()
        await self.rpc("get_user", {"user_id": "user_1"}, authorization=f"bearer {forged}")

    async def log_in_by_phone(self) -> None:
        """Codes by text: guessed wrong, then right, and in a path."""
        number = f"+4179{secrets.randbelow(10**7):07}"
        for attempt in ("verify", "register"):
            nonce = (await self.post("/init", {"phone_number": number})).text
            already = len(self._nest.inbox.arrivals(number))
            text = await eventually(
                lambda expected=already: self._text(number, expected), what="the text with the code"
            )
            code = re.findall(r"#(\d{6})", text)[-1]
            self.keep(phone_code=code, nonce=nonce)
            wrong = f"{(int(code) + 1) % 10**6:06}"
            await self.post("/verify", {"code": wrong, "nonce": nonce, "clientid": CLIENT_ID})
            await self.post(f"/register/{wrong}/{nonce}", {"first_name": "Ada", "last_name": "L"})
            if attempt == "verify":
                token = (await self.post("/verify", {"code": code, "nonce": nonce, "clientid": CLIENT_ID})).text
                self.keep(phone_token=token, signature=token.rpartition(".")[2])
            else:
                await self.post(f"/register/{code}/{nonce}", {"first_name": "Ada", "last_name": "L"})
                await self.post(f"/register/{code}/{nonce}/", {})

    def _text(self, number: str, expected: int) -> str | None:
        arrivals = self._nest.inbox.arrivals(number)
        return arrivals[0].text if len(arrivals) >= max(expected, 1) else None

    async def have_applications(self, email: str) -> None:
        """An owner with an application and a user, with passwords in bodies and in paths."""
        password, other = self._typed("password"), self._typed("other password")
        body = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "password": password}
        owner = (await self.post("/appowner/create", body)).json()
        self.keep(deletion_token=owner["deletion_token"], owner=owner["uuid"])
        await self.post("/appowner/create", body)
        await self._nest.http.get(f"/appowner/emailpassword/{email}/{password}")
        await self._nest.http.get(f"/appowner/emailpassword/{email}/{password}/{password}")
        await self._nest.http.get(f"/appowner/uuid/{owner['uuid']}")
        await self.post("/appowner/login", {"email": email, "password": other})
        made = (await self.post("/applications/create", {"owneruuid": owner["uuid"], "appname": "app"})).json()
        self.keep(api_key=made["apiKey"], application=made["uuid"])
        who = {"apikey": made["apiKey"], "email": email}
        signed_up = await self.post("/users/signup", {**who, "username": "ada", "password": other})
        await self.post("/users/signup", {**who, "username": "ada", "password": "short1"[:3]})
        await self.post("/users/signwithemail", {**who, "password": password})
        token = (await self.post("/users/signwithemail", {**who, "password": other})).json()["token"]
        self.keep(application_token=token, signature=token.rpartition(".")[2])
        await self._nest.http.get(f"/users/islogged/{token}")
        await self._nest.http.get(f"/users/islogged/{token}x")
        await self.post("/users/signin", {"uuid": signed_up.json()["uuid"], "apikey": made["apiKey"]})
        await self.post("/users/update", {"token": token, "password": self._typed("new password")}, verb="PUT")
        await self.post("/users/userdata", {"token": token})
        await self.post(
            "/appowner/update", {**body, "uuid": owner["uuid"], "password": self._typed("new password of the owner")}
        )
        await self.post("/applications/delete", {"apikey": made["apiKey"]}, verb="DELETE")
        deletion = {"uuid": owner["uuid"], "deletion_token": owner["deletion_token"]}
        await self.post("/appowner/delete", deletion, verb="DELETE")

    def _typed(self, what: str) -> str:
        typed = f"typed{secrets.token_hex(12)}"
        self.keep(**{what.replace(" ", "_").replace("'", ""): typed})
        return typed

    def _forged(self) -> str:
        part = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        forged = f"{part}.{part}.{secrets.token_urlsafe(32)}"
        self.keep(forged_token=forged)
        return forged


def found(secret: str, where: bytes) -> bool:
    """Whether a secret is readable there, in any of its forms."""
    if secret.isdigit():
        # Six digits stand in ids and times by chance; as a code they stand alone.
        return re.search(rb"(?<![0-9A-Za-z])" + secret.encode() + rb"(?![0-9A-Za-z])", where) is not None
    return any(form in where for form in forms(secret))


@pytest.mark.parametrize(
    "written",
    ["say {} there", "x{}", "xy{}", "xyz{}"],
)
def test_a_secret_is_found_however_it_is_written(written: str) -> None:
    secret = "hunter2/+hunter2?"
    text = written.format(secret)
    assert found(secret, text.encode())
    assert found(secret, base64.b64encode(text.encode()))
    assert found(secret, base64.urlsafe_b64encode(text.encode()))
    assert found(secret, text.encode().hex().encode())
    assert found(secret, quote(text, safe="").encode())
    assert found(secret, json.dumps({"a": text}).encode())
    assert not found(secret, b"hunter3/+hunter3?")
    assert found("123456", b'{"code": "123456"}')
    assert not found("123456", b"1234567")


async def test_no_secret_of_a_whole_life_is_readable_anywhere(target: Target, email: str) -> None:
    life = Life(target)
    await life.log_in_and_refresh(email)
    await life.start_a_trial(f"trial.{email}")
    await life.mistake_every_field()
    await life.log_in_by_phone()
    await life.have_applications(f"owner.{email}")
    # Traces leave in batches; the last one is that of a call made now or later.
    before = len(target.traces.bodies)
    await life.rpc("list_news_items", {"client_id": CLIENT_ID})
    await eventually(lambda: len(target.traces.bodies) > before, within=30, what="the traces")

    places = {f"log of {name}": log for name, log in target.logs().items()}
    for record in await target.records():
        headers = b"\n".join(name.encode() + b": " + value for name, value in record.headers)
        place = f"{record.topic}/{record.partition}/{record.offset}"
        places[place] = b"\n".join((record.key or b"", headers, record.value or b""))
    for name, documents in target.documents().items():
        places[name] = "\n".join(map(repr, documents)).encode()
    places["refusals"] = b"\n".join(life.refusals)
    places["traces"] = b"\n".join(target.traces.bodies)
    places["metrics"] = await target.metrics()

    assert len(life.secrets) > 40
    assert len(life.refusals) > 20
    assert all(places[name] for name in ("refusals", "traces", "metrics"))
    leaks = [
        f"{what} in {place}"
        for place, text in places.items()
        for what, secret in life.secrets.items()
        if found(secret, text) and not (what.startswith(IDS) and OF_AUTH.search(place))
    ]
    assert not leaks
