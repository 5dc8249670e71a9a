import asyncio
import smtplib
from base64 import b64decode
from contextlib import suppress
from email.message import EmailMessage

from playwright.async_api import FrameLocator, Locator, Page, Route, expect

from services.embedded.credentials import operator_credentials
from tests.browser.accessibility import check_page
from tests.nest_up import NestUp

HTML = """<style>body { background: #fff } @media (prefers-color-scheme: dark) { body { background: #123456 } }</style>
<p>Hello <a href="com.example.app:/open?code=1">open the app</a> <a href="javascript:alert(1)">run</a></p>"""


IMAGE = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
"""A PNG of one pixel."""


async def open_mail(page: Page, search: str) -> FrameLocator:
    """Wait for a mail that the search of the inbox finds, open it, and return its frame."""
    response = await page.request.get("/dev/inbox.json", params={"search": search, "wait": 30}, timeout=60_000)
    mails = await response.json()
    await page.goto(f"/dev/inbox?mail={mails[0]['id']}")
    return page.frame_locator("#mail iframe")


async def open_link(link: Locator) -> Page:
    """Click a link in the frame of a mail until it opens a tab, and return the tab.

    On a busy machine a click into a frame of another process, such as a sandboxed one, can be lost.
    """
    opened: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
    link.page.context.once("page", lambda tab: opened.set_result(tab))  # noqa: PLW0108 -- Playwright sets an attribute of it
    for _ in range(5):
        await link.click()
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(opened), 5)
    raise AssertionError("five clicks opened no tab")


def deliver(smtp_port: int, to: str, subject: str, html: str = HTML) -> None:
    """Send a mail with every part by SMTP, as the mailer does."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Demo <hello@demo.example>", to, subject
    message.set_content(f"{subject}, in plain text: https://a.example/{subject}")
    message.add_alternative(html, subtype="html")
    message.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="invoice.pdf")
    with smtplib.SMTP("127.0.0.1", smtp_port) as server:
        server.send_message(message)


def smtp_port(nest: NestUp) -> int:
    """The port of the inbox's SMTP server."""
    credentials = operator_credentials(nest.folder)
    assert credentials
    return int(credentials.environment["NEST_SMTP_PORT"])


async def test_inbox_lists_shows_searches_and_deletes_by_mouse_and_keyboard(page: Page, nest: NestUp) -> None:
    port = smtp_port(nest)
    await page.request.delete("/dev/inbox.json")
    await page.goto("/dev/inbox")
    await expect(page.get_by_text("Nothing has arrived yet")).to_be_visible()
    await check_page(page, "inbox-empty")
    await expect(page.get_by_text("New mails appear here.")).to_be_visible()

    # Mails appear by an event, without a reload.
    await page.evaluate("() => { window.kept = true; }")
    deliver(port, "first@example.com", "first")
    rows = page.locator("#arrivals a")
    await expect(rows).to_have_count(1)
    await expect(page.locator("#unread")).to_have_text("1 unread")
    for name in ("second", "third"):
        deliver(port, f"{name}@example.com", name)
    await expect(rows).to_have_count(3)
    await check_page(page, "inbox")

    # The frame shows the mail in both widths and themes, whatever the theme of the page is.
    await rows.filter(has_text="second@example.com").click()
    pane = page.locator("#pane")
    await expect(pane.get_by_role("heading")).to_have_text("second")
    await expect(page.locator("#unread")).to_have_text("2 unread")
    body = page.frame_locator("#mail iframe").locator("body")
    await expect(body).to_contain_text("Hello open the app")
    await expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
    await page.get_by_role("button", name="Dark").click()
    await expect(body).to_have_css("background-color", "rgb(18, 52, 86)")
    await page.get_by_role("button", name="Phone").click()
    assert await page.locator("#mail iframe").evaluate("each => each.clientWidth") == 375 - 2
    await check_page(page, "inbox-mail")

    # Tabs.
    shown = {
        "Text": "second, in plain text",
        "Source": "MIME-Version: 1.0",
        "Headers": "Demo <hello@demo.example>",
        "Links": "com.example.app:/open?code=1",
        "Attachments": "invoice.pdf",
    }
    for name, text in shown.items():
        await pane.get_by_role("link", name=name).first.click()
        await expect(pane).to_contain_text(text)
        await expect(pane.locator('a[href^="javascript"]')).to_have_count(0)
        if name in {"Headers", "Links"}:
            await check_page(page, f"inbox-{name.lower()}")
    async with page.expect_download() as download:
        await pane.get_by_role("link", name="invoice.pdf").click()
    file = await download.value
    assert file.suggested_filename == "invoice.pdf"
    assert await file.failure() is None
    await pane.get_by_role("link", name="Links").click()
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await pane.get_by_role("listitem").filter(has_text="com.example.app").get_by_role("button", name="Copy").click()
    await expect(pane.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("() => navigator.clipboard.readText()") == "com.example.app:/open?code=1"

    # Search, by the keyboard.
    await pane.focus()
    await page.keyboard.press("/")
    await page.keyboard.type("to:third")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("third@example.com")
    deliver(port, "fourth@example.com", "fourth")
    await expect(page.locator("#news")).to_have_text("Mail to fourth@example.com: fourth")
    await expect(rows).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(rows).to_have_count(4)

    # Move, open, delete and go back, by the keyboard.
    await page.locator("h1").click()
    await page.goto("/dev/inbox")
    await page.keyboard.press("j")
    await expect(rows.nth(0)).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("j")
    await page.keyboard.press("k")
    await expect(rows.nth(1)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(pane.get_by_role("heading")).to_have_text("third")
    await page.keyboard.press("Delete")
    await expect(pane.get_by_text("Delete this mail to third@example.com?")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(3)
    await expect(rows.filter(has_text="second@example.com")).to_be_focused()

    # A deletion elsewhere closes the open mail. On a phone the list makes room for the mail.
    await page.keyboard.press("Enter")
    await expect(pane.get_by_role("heading")).to_have_text("second")
    await page.request.delete("/dev/inbox.json?to=second@example.com")
    await expect(pane.get_by_text("This mail is gone")).to_be_visible()
    await page.goto("/dev/inbox")
    await page.set_viewport_size({"width": 360, "height": 740})
    await rows.first.click()
    await expect(rows.first).to_be_hidden()
    await page.go_back()
    await expect(rows.first).to_be_visible()
    await page.get_by_text("Delete all", exact=True).click()
    await expect(page.get_by_text("Delete all 2 arrivals?")).to_be_visible()
    # The question stays when the list changes.
    await page.get_by_role("button", name="Delete 2").focus()
    deliver(port, "fifth@example.com", "fifth")
    await expect(page.get_by_text("Delete all 3 arrivals?")).to_be_visible()
    await expect(page.get_by_role("button", name="Delete 3")).to_be_focused()
    await page.get_by_role("button", name="Delete 3").click()
    await expect(page.get_by_text("Nothing has arrived yet")).to_be_visible()


async def test_change_of_the_inbox_does_not_cancel_what_was_clicked(page: Page, nest: NestUp) -> None:
    port = smtp_port(nest)
    deliver(port, "slow@example.com", "slow")
    await page.goto("/dev/inbox")
    await expect(page.get_by_text("New mails appear here.")).to_be_visible()
    rows, pane = page.locator("#arrivals a"), page.locator("#pane")

    async def arrive_first(route: Route) -> None:
        response = await route.fetch()
        deliver(port, "overtaking@example.com", "overtaking")
        await expect(page.locator("#news")).to_have_text("Mail to overtaking@example.com: overtaking")
        await page.wait_for_timeout(500)  # longer than a refresh takes
        await route.fulfill(response=response)

    await page.route("**/dev/inbox?mail=*", arrive_first, times=1)
    await rows.filter(has_text="slow@example.com").click()
    await expect(pane.get_by_role("heading")).to_have_text("slow")
    await expect(rows.first).to_contain_text("overtaking@example.com")
    await expect(pane.get_by_role("heading")).to_have_text("slow")

    async def delete_first(route: Route) -> None:
        response = await route.fetch()
        await page.request.delete("/dev/inbox.json?to=slow@example.com")
        await page.wait_for_timeout(500)
        await route.fulfill(response=response)

    # A search leaves the pane alone, unless its mail is gone.
    await page.route("**/dev/inbox?*search=over*", delete_first, times=1)
    await page.get_by_role("searchbox").fill("over")
    await expect(pane.get_by_text("This mail is gone")).to_be_visible()
    await expect(rows).to_have_count(1)


async def test_images_of_a_mail_are_shown_in_its_html(page: Page, nest: NestUp) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Demo <hello@demo.example>", "art@example.com", "art"
    message.set_content('<p>Your logo:</p><img src="cid:logo@demo" alt="Logo" width="120" height="40">', subtype="html")
    message.add_related(IMAGE, "image", "png", cid="<logo@demo>", filename="logo.png")
    with smtplib.SMTP("127.0.0.1", smtp_port(nest)) as server:
        server.send_message(message)
    frame = await open_mail(page, "to:art")
    await expect(frame.get_by_alt_text("Logo")).to_have_js_property("naturalWidth", 1)
    await check_page(page, "inbox-images")
    pane = page.locator("#pane")
    await pane.get_by_role("link", name="Attachments").click()
    await expect(pane.get_by_role("listitem").filter(has_text="cid:logo@demo")).to_contain_text("image/png, 70 bytes")
    await check_page(page, "inbox-attachments")


async def test_text_is_shown_as_a_text_and_the_stream_survives_a_lost_connection(page: Page, nest: NestUp) -> None:
    await page.goto("/dev/inbox")
    await expect(page.get_by_text("New mails appear here.")).to_be_visible()
    await page.context.set_offline(True)
    await page.context.set_offline(False)
    message = EmailMessage()
    message.set_content("123456 is your Demo code.")
    with smtplib.SMTP("127.0.0.1", smtp_port(nest)) as server:
        server.sendmail("nest@localhost", ["+4915112345678@texts.localhost"], bytes(message))
    await page.locator("#arrivals a", has_text="+4915112345678").first.click()
    await expect(page.locator(".bubble")).to_have_text("123456 is your Demo code.")
    await check_page(page, "inbox-text-message")
