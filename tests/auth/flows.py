"""Steps that tests of auth share: request a link, redeem its code, log in, refresh."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.auth.tokens.handlers import SUCCESSORS
from shared.bus.envelope import encode
from shared.ids import new_message_id
from shared.messages import Message, Sealed
from shared.messages.auth.clients import UpdateClient
from shared.messages.auth.magic_links import SendMagicLink, SendMagicLinkAndCode
from shared.messages.auth.tokens import AuthenticateUser, RedeemGrant, TokenView
from shared.messages.mailer.mails import SendMail
from tests.service_harness import Refused, ServiceHarness

CLIENT = "client_one"
OTHER_CLIENT = "client_two"
REDIRECT_URI = "https://app.example/callback"
ADDRESS = "ana@example.com"
# RFC 7636, appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
WRONG_VERIFIER = "x" * 43
LINK_REQUEST = {
    "client_id": CLIENT,
    "redirect_uri": REDIRECT_URI,
    "state": "a state",
    "code_challenge_method": "S256",
    "code_challenge": CHALLENGE,
    "identifier_type": "email",
    "identifier_value": ADDRESS,
}


def send_magic_link(**changed: Any) -> SendMagicLink:
    return SendMagicLink(**{**LINK_REQUEST, **changed})


def redemption(code: str | None, **changed: Any) -> AuthenticateUser:
    secret = {"code": code, "code_verifier": VERIFIER, **changed}
    return AuthenticateUser(
        **{
            "client_id": CLIENT,
            "grant_type": "authorization_code",
            "redirect_uri": REDIRECT_URI,
            **secret,
            **{
                name: None if secret[name] is None else Sealed.of(secret[name])  # type: ignore[arg-type]
                for name in ("code", "code_verifier")
            },
        }
    )


def refresh(refresh_token: str | None, client_id: str = CLIENT) -> AuthenticateUser:
    return AuthenticateUser(
        client_id=client_id,
        grant_type="refresh_token",
        refresh_token=None if refresh_token is None else Sealed.of(refresh_token),
    )


async def refresh_in_two_documents(harness: ServiceHarness, refresh_token: str, **arguments: Any) -> dict[str, Any]:
    """Refresh, and store the tokens as before 2026-11-30: the used one and its successor were two documents."""
    tokens = harness.database["refresh_tokens"]
    used_id = refresh_token.split(".")[1]
    used = await tokens.find_one({"_id": used_id})
    reply: dict[str, Any] = await harness.deliver(refresh(refresh_token), **arguments)
    successor = await tokens.find_one_and_delete({"_id": used_id})
    assert used is not None
    assert successor is not None
    key, successor_id = reply["refresh_token"].split(".")[2], f"{used_id}x"
    reply["refresh_token"] = f"01.{successor_id}.{key}"
    sealed = harness.sealer.seal(SUCCESSORS, TokenView(**reply).model_dump_json().encode())
    ended = {"usedAt": successor["createdAt"], "revokedAt": successor["createdAt"], "sealedReply": None}
    documents = [
        {**used, **ended, "successor": {"id": successor_id, "sealed": ""}, "version": used["version"] + 1},
        {**successor, "_id": successor_id, "sealedReply": sealed, "version": 1},
    ]
    later_fields = {"previousKey", "chainKey", "previousAccessTokenId"}
    await tokens.insert_many(
        [{name: value for name, value in each.items() if name not in later_fields} for each in documents]
    )
    return reply


async def store_access_tokens_apart(harness: ServiceHarness) -> None:
    """Give all tokens the shape that they had before 2026-11-29: access tokens were documents of their own."""
    refresh_tokens = harness.database["refresh_tokens"]
    shared = ("clientId", "userId", "grant", "rootGrant", "cidrBlocks", "createdAt", "revokedAt", "version")
    for token in await refresh_tokens.find({"accessTokenExpiresAt": {"$type": "date"}}).to_list():
        access_token = {name: token[name] for name in shared if name in token}
        access_token |= {"_id": token["accessTokenId"], "expiresAt": token["accessTokenExpiresAt"]}
        await harness.database["access_tokens"].insert_one(access_token)
    await refresh_tokens.update_many({}, {"$unset": {"accessTokenExpiresAt": ""}})


def mailed_link(harness: ServiceHarness, mail: SendMail) -> str:
    """The link in a mail command, unsealed as by mailer."""
    link: str = harness.variables_of(mail)["link"]
    return link


def code_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["code"][0]


async def request_code(harness: ServiceHarness, **changed: Any) -> str:
    """Request a link, and return its code."""
    await harness.deliver(send_magic_link(**changed))
    return code_of(mailed_link(harness, harness.published_of(SendMail)[-1]))


async def log_in(harness: ServiceHarness, **changed: Any) -> dict[str, Any]:
    """Request a link, redeem its code, and return the tokens."""
    code = await request_code(harness, **changed)
    client_id = changed.get("client_id", CLIENT)
    tokens: dict[str, Any] = await harness.deliver(redemption(code, client_id=client_id))
    return tokens


async def disable_client(harness: ServiceHarness) -> None:
    """Disable the client, as an operator does."""
    await harness.deliver(UpdateClient(id=CLIENT, disabled=True))
    harness.clear()


async def refusal(harness: ServiceHarness, message: Message, **options: Any) -> tuple[str, str]:
    """Deliver a message that is refused, and return the refusal's kind and code."""
    with pytest.raises(Refused) as refused:
        await harness.deliver(message, **options)
    return refused.value.kind, refused.value.code


def redeliverable(harness: ServiceHarness, message: Message) -> dict[str, Any]:
    """Arguments of ``ServiceHarness.deliver`` to deliver a message with secrets repeatedly: its ID and sealed body."""
    return {"id": new_message_id(), "body": encode(message, harness.sealer)}


async def request_typed_code(harness: ServiceHarness, **changed: Any) -> tuple[str, str]:
    """Request a mail with a typed code, and return the digits and the code of the link."""
    await harness.deliver(SendMagicLinkAndCode(**{**LINK_REQUEST, **changed}))
    mail = harness.published_of(SendMail)[-1]
    variables = harness.variables_of(mail)
    return variables["code"], code_of(variables["link"])


def typed(code: str | None, **changed: Any) -> RedeemGrant:
    """The redemption of a code by a client of the newest version."""
    command = redemption(code, **changed)
    return RedeemGrant(**{name: getattr(command, name) for name in RedeemGrant.model_fields})
