"""The console behind its login: link, digits, names in the audit, and the ends of a session."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx

from services.gateway.console.sessions import CLIENT_ID
from tests.end_to_end.conftest import OPERATOR_ADDRESS, UNNAMED_OPERATOR_ADDRESS
from tests.end_to_end.flows import operator_call
from tests.gateway.console.test_login import Browser, csrf_of
from tests.stack import Login, Stack, eventually


def browser_at(nest: Stack) -> Browser:
    return Browser(nest.http, origin=nest.urls[0])


async def sent_mail(nest: Stack, browser: Browser, address: str) -> tuple[Any, httpx.Response]:
    """Ask for a link; return the mail and the page."""
    already = len(nest.inbox.arrivals(address))
    form = {"csrf": await browser.csrf("/console/login"), "email": address}
    page = await browser.post("/console/login", form)
    assert page.status_code == 200
    return await nest.mail(address, count=already + 1), page


async def log_in(nest: Stack, address: str) -> Browser:
    browser = browser_at(nest)
    mail, _ = await sent_mail(nest, browser, address)
    link = urlsplit(next(link for link in mail.links if "code=" in link))
    assert f"{link.scheme}://{link.netloc}" == nest.urls[0]
    opened = await browser.get(f"{link.path}?{link.query}")
    (code,) = re.findall(r'name="code" value="([^"]+)"', opened.text)
    redeemed = await browser.post("/console/callback", {"csrf": csrf_of(opened), "code": code})
    assert redeemed.status_code == 303
    return browser


async def caller_names(nest: Stack, user_id: str, action: str) -> list[str]:
    view = await operator_call(nest, "list_audit_entries", user_id=user_id, action=action)
    return [entry["key_name"] for entry in view["entries"]]


async def test_operator_logs_in_and_acts_under_a_name(nest: Stack, email: str) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    browser = await log_in(nest, OPERATOR_ADDRESS)
    person = await browser.get(f"/console/people/{user_id}")
    assert email in person.text

    ended = await browser.post(f"/console/people/{user_id}/end-sessions", {"csrf": csrf_of(person)})

    assert (ended.status_code, ended.headers["location"]) == (303, f"/console/people/{user_id}")
    assert (await operator_call(nest, "list_sessions", user_id=user_id)) == []
    assert "One session was ended." in (await browser.get(f"/console/people/{user_id}")).text
    await eventually(lambda: caller_names(nest, user_id, "revoke_sessions"), what="the audit entry")
    assert await caller_names(nest, user_id, "revoke_sessions") == ["console:ada"]


async def test_digits_of_the_mail_log_in_and_the_person_can_end_the_session(nest: Stack, email: str) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    browser = browser_at(nest)
    mail, page = await sent_mail(nest, browser, UNNAMED_OPERATOR_ADDRESS)
    (digits,) = re.findall(r"^[0-9]{6}$", mail.text, re.MULTILINE)
    assert (await browser.post("/console/callback", {"csrf": csrf_of(page), "code": digits})).status_code == 303
    assert (await browser.get(f"/console/people/{user_id}")).status_code == 200
    operator = await operator_call(
        nest, "find_user", identifier_type="email", identifier_value=UNNAMED_OPERATOR_ADDRESS
    )
    assert (await caller_names(nest, user_id, "get_user"))[0] == f"console:{operator['id']}"

    await operator_call(nest, "revoke_sessions", user_id=operator["id"], which="all")

    async def logged_out() -> bool:
        return (await browser.get("/console")).status_code == 303

    await eventually(logged_out, what="the end of the session")


async def test_code_that_a_stranger_ordered_for_the_console_opens_nothing(nest: Stack, email: str) -> None:
    """Anybody may order a link of the console's client for an own address; the console does not take its code."""
    await log_in(nest, OPERATOR_ADDRESS)
    stranger = Login(email, client_id=CLIENT_ID, redirect_uri=f"{nest.urls[0]}/console/callback")
    code = await nest.code(stranger)
    browser = browser_at(nest)
    _, page = await sent_mail(nest, browser, OPERATOR_ADDRESS)

    taken = await browser.post("/console/callback", {"csrf": csrf_of(page), "code": code})

    assert taken.status_code >= 400
    assert "__Host-nest-console" not in browser.cookies
