"""The TypeScript client against `nest up`: in Node.js, and in tabs of a browser with the React sample of its README."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from playwright.async_api import Browser, BrowserContext, Page, Request, Route, expect

from services.embedded.credentials import operator_credentials
from services.embedded.demo import CLIENT_ID
from tests.nest_up import NestUp
from tests.stack import eventually
from tests.typescript_client import FOLDER, built, run

PAGE = '<!doctype html><title>App</title><div id="root"></div><script>{script}</script>'
ENTRY = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Client, LocalStorageStore } from "@nest/client";
import { App } from "./app.js";

Object.assign(window, { Client, session: new Client(NEST).session(new LocalStorageStore()) });
createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
"""
NO_WEB_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });"
EXPIRE = """() => {
    const tokens = JSON.parse(localStorage.getItem("nest.tokens"));
    localStorage.setItem("nest.tokens", JSON.stringify({ ...tokens, expiresAt: 0 }));
}"""
GET_USERS = "() => Promise.all([1, 2, 3].map(() => session.getUser())).then((users) => users[0].id)"


async def test_client_runs_in_node_and_so_do_the_samples_of_its_readme(nest: NestUp) -> None:
    folder = await built()
    operator = operator_credentials(nest.folder)
    assert operator

    output = await run(
        *("node", "--test", *sorted((folder / "tests" / "running").glob("[nr]*.mjs"))),
        cwd=folder,
        NEST_URL=nest.base_url,
        NEST_INTERNAL_KEY=operator.internal_key,
        CLIENT_ID=CLIENT_ID,
    )

    assert "# fail 0" in output


async def bundled_app() -> str:
    """Return the script of the README's app for React."""
    folder = await built()
    (app,) = re.findall(r"^```tsx\n(.*?)^```$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    source = folder / "tests" / f".app-{secrets.token_hex(4)}"
    source.mkdir()
    try:
        (source / "app.tsx").write_text(app)
        (source / "main.tsx").write_text(ENTRY)
        options = (
            "--bundle",
            "--minify",
            "--jsx=automatic",
            "--log-level=error",
            "--define:process.env.NODE_ENV='test'",
        )
        return await run("node_modules/.bin/esbuild", source / "main.tsx", *options, cwd=folder)
    finally:
        for path in source.iterdir():
            path.unlink()
        source.rmdir()


async def link_to(nest: NestUp, email: str) -> str:
    async def arrived() -> Any:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{nest.base_url}/dev/inbox.json?to={quote(email)}")).json()

    (mail,) = await eventually(arrived, what=f"a mail to {email}")
    link: str = next(each for each in mail["links"] if "code=" in each)
    return link


@asynccontextmanager
async def served(html: str) -> AsyncIterator[str]:
    """Serve a page at an origin of its own, which Nest does not know."""
    content = html.encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + content)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def app_tab(context: BrowserContext, url: str) -> Page:
    tab = await context.new_page()
    await tab.goto(url)
    return tab


async def response_of(request: Request) -> Any:
    response = await request.response()
    assert response is not None
    return await response.json()


async def test_tabs_of_a_react_app_share_a_login_and_its_refreshes(page: Page, nest: NestUp, browser: Browser) -> None:
    email, callback, context = f"{secrets.token_hex(6)}@example.com", f"{nest.base_url}/dev/callback", page.context
    constants = json.dumps({"NEST": nest.base_url, "CLIENT_ID": CLIENT_ID, "REDIRECT_URI": callback})
    script = f"Object.assign(window, {constants});{await bundled_app()}".replace("</script", "<\\/script")
    html = PAGE.replace("{script}", script)
    refreshed: list[asyncio.Task[Any]] = []

    async def serve(route: Route) -> None:
        await route.fulfill(body=html, content_type="text/html; charset=utf-8")

    await context.route(re.compile(rf"^{re.escape(callback)}"), serve)
    await page.goto(callback)
    await page.locator("input[name=email]").fill(email)
    await page.keyboard.press("Enter")
    await expect(page.locator("input[name=code]")).to_be_visible()

    other = await app_tab(context, await link_to(nest, email))
    for tab in (other, page):  # the link logs in both tabs
        await expect(tab.get_by_text(email)).to_be_visible()
    assert other.url == callback, "the code is still in the address"

    def read_refresh(request: Request) -> None:
        if request.url.endswith("authenticate_user"):
            refreshed.append(asyncio.create_task(response_of(request)))

    context.on("request", read_refresh)
    for expected in (1, 2):
        await page.evaluate(EXPIRE)
        users = await asyncio.gather(*(tab.evaluate(GET_USERS) for tab in (page, other, page, other)))
        assert len(set(users)) == 1
        # A browser under load may show a tab the tokens of the other one late; it then repeats the same refresh.
        assert len({each["refresh_token"] for each in await asyncio.gather(*refreshed)}) == expected
        await context.add_init_script(NO_WEB_LOCKS)  # for the second time
        await asyncio.gather(page.reload(), other.reload())

    await page.get_by_role("button", name="Log out").click()
    for tab in (other, page):
        await expect(tab.locator("input[name=email]")).to_be_visible()

    async with served(html) as origin:
        foreign = await app_tab(await browser.new_context(), origin)
        refused = await foreign.evaluate("NEST => new Client(NEST).listPlans().catch(String)", nest.base_url)
        await foreign.context.close()
    assert "NEST_CORS_ORIGINS" in refused
