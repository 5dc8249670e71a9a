"""Secrets: after every flow with secrets, none is readable in logs, topics, databases, errors, traces or metrics."""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Any, Final

import httpx

from services.embedded.demo import CLIENT_ID
from tests.abuse.conftest import Target
from tests.readable import contains
from tests.stack import Login, code_of, eventually

OWNER_IDS: Final = "owner id "
"""Name of secrets that are IDs of owners."""
OWNER_PLACES: Final = re.compile(r"auth\.(owners|applications|inbox|commands)\b")
"""Places where these IDs are readable: auth's collections, and its own commands that delete an owner's data."""


class Flows:
    """The flows with secrets. They collect every secret that occurs.

    Attributes:
        secrets: by a descriptive name.
        refusals: bodies of all error responses.
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
        """Send a request; any response below 500 is accepted."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self._nest.http.request(verb, path, content=content, headers=headers)
        assert response.status_code < 500, (path, response.text)
        if response.status_code >= 400:
            self.refusals.append(response.content)
        return response

    async def rpc(self, method: str, body: Any, **headers: str) -> httpx.Response:
        """Call an RPC method."""
        return await self.post(f"/1/2021-10-06/{method}", body, **headers)

    def add(self, **secrets_: str) -> None:
        """Collect secrets."""
        for name, secret in secrets_.items():
            self.secrets[f"{name.replace('_', ' ')} {len(self.secrets)}"] = secret

    def add_tokens(self, tokens: dict[str, Any]) -> None:
        """Collect an access and a refresh token: each as a whole, and its unguessable part alone."""
        self.add(
            access_token=tokens["access_token"],
            signature=tokens["access_token"].rpartition(".")[2],
            refresh_token=tokens["refresh_token"],
            refresh_key=tokens["refresh_token"].rpartition(".")[2],
        )

    async def log_in_and_refresh(self, email: str) -> None:
        """Log in by magic link and refresh, until a stolen refresh token is used."""
        login = Login(email)
        code = await self._nest.code(login)
        self.add(code=code, key=code.partition(".")[2], verifier=login.verifier)
        await self.rpc("authenticate_user", login.redemption(code, code_verifier=self._new_secret("verifier")))
        await self.rpc("authenticate_user", login.redemption(f"{code}x"))
        tokens = (await self.rpc("authenticate_user", login.redemption(code))).json()
        self.add_tokens(tokens)
        await self.rpc("authenticate_user", login.redemption(code))
        refresh = {"client_id": CLIENT_ID, "grant_type": "refresh_token"}
        first = await self.rpc("authenticate_user", {**refresh, "refresh_token": tokens["refresh_token"]})
        self.add_tokens(first.json())
        second = await self.rpc("authenticate_user", {**refresh, "refresh_token": first.json()["refresh_token"]})
        self.add_tokens(second.json())
        stolen = await self.rpc("authenticate_user", {**refresh, "refresh_token": tokens["refresh_token"]})
        assert stolen.json()["code"] == "token_used"
        await self.rpc(
            "get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {second.json()['access_token']}"
        )

    async def type_a_code(self, email: str) -> None:
        """Log in with the digits of a mail, after a wrong guess, and without the right verifier."""
        login, version = Login(email), "/1/2026-12-01"
        await self.post(f"{version}/send_magic_link", login.request())
        mail = await self._nest.mail(email)
        digits = re.findall(r"^[0-9]{6}$", mail.text, re.MULTILINE)[0]
        self.add(typed_code=digits, link_key=code_of(mail, login).rpartition(".")[2], verifier=login.verifier)
        other = login.redemption(digits, code_verifier=self._new_secret("verifier"))
        await self.post(f"{version}/authenticate_user", other)
        await self.post(f"{version}/authenticate_user", login.redemption(f"{(int(digits) + 1) % 10**6:06}"))
        await self.post(f"{version}/authenticate_user", login.redemption(f"{digits}7"))
        redeemed = await self.post(f"{version}/authenticate_user", login.redemption(digits))
        self.add_tokens(redeemed.json())

    async def start_a_trial(self, email: str) -> None:
        """Start a trial, log in by its link, and wait for the welcome and for Stripe's webhooks."""
        device = {"platform": "mac", "beak_id": f"beak-{email}", "fingerprint": f"print-{email}"}
        login = Login(email)
        await self.rpc("create_trial_and_magic_link", login.request(device=device))
        code = code_of(await self._nest.mail(email), login)
        self.add(trial_key=code.rpartition(".")[2])
        self.add_tokens((await self.rpc("authenticate_user", login.redemption(code))).json())
        await self._nest.mail(email, count=2)
        await self._nest.stripe.webhooks.drain()

    async def send_secrets_in_wrong_fields(self) -> None:
        """Send secrets in wrong types, unknown fields and unknown paths.

        Excluded are fields in which the secret is a valid value, such as a client ID.
        """
        secret = self._new_secret("field")
        await self.rpc("authenticate_user", {"client_id": CLIENT_ID, "grant_type": "password", "code": [secret]})
        await self.rpc("authenticate_user", {"client_id": "", "grant_type": "authorization_code", "code": secret})
        await self.rpc("authenticate_user", {"client_id": CLIENT_ID, "grant_type": "refresh_token", "code": secret})
        await self.rpc("authenticate_user", {"refresh_token": {"a": secret}, "password": secret})
        await self.rpc("authenticate_user", f'{{"refresh_token": "{secret}'.encode())
        await self.rpc("authenticate_user", b'{"code": "' + secret.encode() + b'\xff"}')
        await self.rpc("send_magic_link", {**Login("eve@example.com").request(), "code_challenge": secret})
        await self.rpc(secret, {})
        await self.post(f"/{secret}/{secret}", {})
        await self.post("/1/webhook/stripe", {"id": secret}, **{"stripe-signature": f"t=1,v1={secret}"})
        await self.post(f"/1/webhook/{secret}", {})
        for scheme in ("bearer", "internal", "basic", secret):
            await self.rpc(
                "get_user", {"user_id": "user_1"}, authorization=f"{scheme} {self._new_secret('authorization')}"
            )
        forged = self._forged()
        await self.rpc("get_user", {"user_id": "user_1"}, authorization=f"bearer {forged}")

    async def log_in_by_phone(self) -> None:
        """Log in by phone code: wrong and right codes, in bodies and in a path."""
        number = f"+4179{secrets.randbelow(10**7):07}"
        for attempt in ("verify", "register"):
            nonce = (await self.post("/init", {"phone_number": number})).text
            already = len(self._nest.inbox.arrivals(number))
            text = await eventually(
                lambda expected=already: self._text(number, expected), what="the text with the code"
            )
            code = re.findall(r"#(\d{6})", text)[-1]
            self.add(phone_code=code, nonce=nonce)
            wrong = f"{(int(code) + 1) % 10**6:06}"
            await self.post("/verify", {"code": wrong, "nonce": nonce, "clientid": CLIENT_ID})
            await self.post(f"/register/{wrong}/{nonce}", {"first_name": "Ada", "last_name": "L"})
            if attempt == "verify":
                token = (await self.post("/verify", {"code": code, "nonce": nonce, "clientid": CLIENT_ID})).text
                self.add(phone_token=token, signature=token.rpartition(".")[2])
            else:
                await self.post(f"/register/{code}/{nonce}", {"first_name": "Ada", "last_name": "L"})
                await self.post(f"/register/{code}/{nonce}/", {})

    def _text(self, number: str, expected: int) -> str | None:
        arrivals = self._nest.inbox.arrivals(number)
        return arrivals[0].text if len(arrivals) >= max(expected, 1) else None

    async def use_applications(self, email: str) -> None:
        """Use an owner, an application and its user, with passwords in bodies and in paths."""
        password, other = self._new_secret("password"), self._new_secret("other password")
        body = {"firstname": "Ada", "lastname": "Lovelace", "email": email, "password": password}
        owner = (await self.post("/appowner/create", body)).json()
        self.add(deletion_token=owner["deletion_token"], owner_id=owner["uuid"])
        await self.post("/appowner/create", body)
        await self._nest.http.get(f"/appowner/emailpassword/{email}/{password}")
        await self._nest.http.get(f"/appowner/emailpassword/{email}/{password}/{password}")
        await self._nest.http.get(f"/appowner/uuid/{owner['uuid']}")
        await self.post("/appowner/login", {"email": email, "password": other})
        owner_token = (await self.post("/appowner/login", {"email": email, "password": password})).json()["token"]
        self.add(owner_token=owner_token, signature=owner_token.rpartition(".")[2])
        application = (await self.post("/applications/create", {"owneruuid": owner["uuid"], "appname": "app"})).json()
        self.add(api_key=application["apiKey"], application_id=application["uuid"])
        user = {"apikey": application["apiKey"], "email": email}
        signed_up = await self.post("/users/signup", {**user, "username": "ada", "password": other})
        await self.post("/users/signup", {**user, "username": "ada", "password": "short1"[:3]})
        await self.post("/users/signwithemail", {**user, "password": password})
        token = (await self.post("/users/signwithemail", {**user, "password": other})).json()["token"]
        self.add(application_token=token, signature=token.rpartition(".")[2])
        await self._nest.http.get(f"/users/islogged/{token}")
        await self._nest.http.get(f"/users/islogged/{token}x")
        await self.post("/users/signin", {"uuid": signed_up.json()["uuid"], "apikey": application["apiKey"]})
        await self.post("/users/update", {"token": token, "password": self._new_secret("new password")}, verb="PUT")
        await self.post("/users/userdata", {"token": token})
        await self.use_account_links(user)
        await self.post(
            "/appowner/update",
            {**body, "uuid": owner["uuid"], "password": self._new_secret("new password of the owner")},
        )
        await self.post(
            "/applications/delete",
            {"apikey": application["apiKey"], "password": self._new_secret("guess")},
            verb="DELETE",
            authorization=f"bearer {owner_token}",
        )
        deletion = {"uuid": owner["uuid"], "deletion_token": owner["deletion_token"]}
        await self.post("/appowner/delete", deletion, verb="DELETE")

    async def use_account_links(self, user: dict[str, str]) -> None:
        """Prove the address of an application's user, and set a new password with a page and with a call."""
        mail = await self._nest.mail(user["email"], subject="Confirm your address")
        proof = re.findall(r"/confirm/([^\s?]+)", mail.text)[0]
        self.add(proof=proof, proof_key=proof.partition(".")[2])
        await self.post("/users/verify", {"token": proof})
        for count in (1, 2):
            await self.post("/users/forgot", user)
            mail = await self._nest.mail(user["email"], subject="Choose a new password", count=count)
            link = re.findall(r"/reset/([^\s?]+)", mail.text)[0]
            self.add(reset_token=link, reset_key=link.partition(".")[2])
            await self._nest.http.get(f"/reset/{link}")
            await self._nest.http.post(f"/reset/{link}", data={"password": "short"})
            if count == 1:
                await self._nest.http.post(f"/reset/{link}", data={"password": self._new_secret("reset password")})
            await self.post("/users/reset", {"token": link, "password": self._new_secret("password by call")})

    def _new_secret(self, name: str) -> str:
        secret = f"typed{secrets.token_hex(12)}"
        self.add(**{name.replace(" ", "_"): secret})
        return secret

    def _forged(self) -> str:
        part = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        forged = f"{part}.{part}.{secrets.token_urlsafe(32)}"
        self.add(forged_token=forged)
        return forged


async def test_no_secret_is_readable_anywhere(target: Target, email: str) -> None:
    flows = Flows(target)
    await flows.log_in_and_refresh(email)
    await flows.type_a_code(f"typed.{email}")
    await flows.start_a_trial(f"trial.{email}")
    await flows.send_secrets_in_wrong_fields()
    await flows.log_in_by_phone()
    await flows.use_applications(f"owner.{email}")
    # Traces are sent in batches, in order: once that of a later call has arrived, all earlier ones have.
    before = len(target.traces.bodies)
    await flows.rpc("list_news_items", {"client_id": CLIENT_ID})
    await eventually(lambda: len(target.traces.bodies) > before, within=30, what="the traces")

    places = {f"log of {name}": log for name, log in target.logs().items()}
    for record in await target.records():
        headers = b"\n".join(name.encode() + b": " + value for name, value in record.headers)
        place = f"{record.topic}/{record.partition}/{record.offset}"
        places[place] = b"\n".join((record.key or b"", headers, record.value or b""))
    for name, documents in target.documents().items():
        places[name] = "\n".join(map(repr, documents)).encode()
    places["refusals"] = b"\n".join(flows.refusals)
    places["traces"] = b"\n".join(target.traces.bodies)
    places["metrics"] = await target.metrics()

    assert len(flows.secrets) > 40
    assert len(flows.refusals) > 20
    assert all(places[name] for name in ("refusals", "traces", "metrics"))
    leaks = [
        f"{name} in {place}"
        for place, text in places.items()
        for name, secret in flows.secrets.items()
        if contains(text, secret) and not (name.startswith(OWNER_IDS) and OWNER_PLACES.search(place))
    ]
    assert not leaks
