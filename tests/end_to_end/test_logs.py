"""Logs: the lines of one login, found by its request IDs and traces."""

from __future__ import annotations

import json
from typing import Any

from tests.stack import Login, Stack, eventually


def lines(nest: Stack) -> list[dict[str, Any]]:
    """Every entry of every process, without lines that are no JSON."""
    texts = (line for process in nest.processes.values() for line in process.log.splitlines() if line.startswith("{"))
    return [json.loads(text) for text in texts]


def outcomes(nest: Stack, request_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of a request, by service and by method or type."""
    found = (line for line in lines(nest) if line.get("request_id") == request_id and "outcome" in line)
    return {(line["service"], line.get("method") or line["type"]): line for line in found}


async def test_a_login_is_followed_by_its_request_ids_through_all_services(separate: Stack, email: str) -> None:
    nest, login = separate, Login(email)
    asked, redeemed = f"asked-{login.state}", f"redeemed-{login.state}"
    assert (await nest.call("send_magic_link", login.request(), x_request_id=asked)).status_code == 204
    mail = await nest.mail(email)
    code = next(link for link in mail.links if "code=" in link).partition("code=")[2].partition("&")[0]
    tokens = (await nest.call("authenticate_user", login.redemption(code), x_request_id=redeemed)).json()

    expected = {
        asked: {("gateway", "send_magic_link"), ("auth", "auth.send-magic-link"), ("mailer", "mailer.send-mail")},
        redeemed: {("gateway", "authenticate_user"), ("auth", "auth.authenticate-user")},
    }
    for request_id, names in expected.items():
        await eventually(lambda: names <= set(outcomes(nest, request_id)), what=f"lines of {request_id}")  # noqa: B023
        found = outcomes(nest, request_id)
        assert {line["outcome"] for line in found.values()} == {"done"}
        assert {line["event"] for line in found.values()} == {"call", "message"}
        (trace,) = {line["trace_id"] for line in found.values()}
        assert len(trace) == 32
        assert all(line["ms"] >= 0 and line["level"] == "info" for line in found.values())
        assert all(len(line["message_id"]) == 32 for line in found.values())
        assert [line["service"] for line in lines(nest) if line.get("trace_id") == trace].count("gateway") == 1
    call = outcomes(nest, asked)["gateway", "send_magic_link"]
    assert call["message_id"] == outcomes(nest, asked)["auth", "auth.send-magic-link"]["message_id"]
    assert (call["status"], call["version"], call["verb"]) == (204, "2021-10-06", "POST")

    text = "\n".join(process.log for process in nest.processes.values())
    for secret in (email, code, login.state + "&", login.challenge, *map(str, tokens.values()), nest.internal_key):
        if len(secret) > 8:
            assert secret not in text, secret


async def test_a_refusal_has_a_line_with_its_code(separate: Stack) -> None:
    login = Login("nobody@example.com")
    answer = await separate.call("authenticate_user", login.redemption("authzcode_x.y"), x_request_id="refused-by-auth")
    assert answer.status_code >= 400
    await eventually(lambda: len(outcomes(separate, "refused-by-auth")) == 2, what="the lines")
    codes = {line["outcome"] for line in outcomes(separate, "refused-by-auth").values()}
    assert codes == {answer.json()["code"]}
    await separate.http.get("/healthz", headers={"x-request-id": "a-probe"})
    await separate.http.get("/nothing/here", headers={"x-request-id": "no-such-path"})
    await eventually(lambda: outcomes(separate, "no-such-path"), what="the line of an unknown path")
    (line,) = outcomes(separate, "no-such-path").values()
    assert (line["method"], line["status"], line["verb"]) == ("unknown", 404, "GET")
    assert not outcomes(separate, "a-probe")
