from playwright.async_api import Page, expect


async def ask_for_a_link(page: Page, email: str, button: str = "Send me a link") -> None:
    await page.goto("/")
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_role("button", name=button).click()
    await expect(page.get_by_role("status")).to_contain_text("The mail has arrived.")


async def test_a_newcomer_logs_in_by_clicking_only(page: Page) -> None:
    await ask_for_a_link(page, "ada@example.com")
    await page.get_by_role("link", name="Read it in the inbox").click()
    article = page.locator("article", has_text="To ada@example.com").first
    await expect(article.get_by_role("heading")).not_to_be_empty()
    async with page.context.expect_page() as opened:
        # The mail's own button, in the sandboxed frame, opens a tab of its own as a mail program's does.
        await article.frame_locator("iframe").get_by_role("link").first.click()
    tab = await opened.value
    await expect(tab.get_by_role("heading", level=1)).to_have_text("You are logged in as ada@example.com")
    await expect(tab.get_by_text("none active")).to_be_visible()
    assert tab.url.endswith("/dev/callback"), "the code has left the address bar"
    await tab.get_by_text("The access token, decoded").click()
    await expect(tab.locator("#token")).to_contain_text('"alg": "ES256"')
    await tab.get_by_text("get_user", exact=True).click()
    await expect(tab.locator("#user")).to_contain_text('"identifier_value": "ada@example.com"')


async def test_a_trial_is_started_by_clicking_only(page: Page) -> None:
    await ask_for_a_link(page, "trial@example.com", button="Start a trial")
    await page.get_by_role("link", name="open its link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are logged in as trial@example.com")


async def test_a_link_opened_twice_is_refused_in_words(page: Page) -> None:
    await ask_for_a_link(page, "twice@example.com")
    link = await page.get_by_role("link", name="open its link").get_attribute("href")
    assert link
    kept = await page.evaluate("JSON.stringify(localStorage)")
    await page.goto(link)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("You are logged in")
    await page.evaluate("kept => Object.assign(localStorage, JSON.parse(kept))", kept)
    await page.goto(link)
    await expect(page.get_by_role("alert")).to_have_text("Nest refused it: token_used.")


async def test_a_link_asked_for_elsewhere_shows_its_code(page: Page) -> None:
    await page.goto("/dev/callback?code=authzcode_1.abc&state=elsewhere")
    await expect(page.get_by_role("heading", level=1)).to_have_text("This login was begun elsewhere")
    await expect(page.get_by_role("alert")).to_contain_text("authzcode_1.abc")


async def test_the_inbox_shows_a_new_mail_without_a_click(page: Page) -> None:
    await page.goto("/dev/inbox")
    other = await page.context.new_page()
    await ask_for_a_link(other, "waiting@example.com")
    await page.bring_to_front()
    await expect(page.locator("article", has_text="To waiting@example.com")).to_be_visible()


async def test_a_wrong_address_is_refused_in_words(page: Page) -> None:
    await page.goto("/")
    await page.get_by_label("E-mail address").fill("nobody@localhost")
    await page.get_by_role("button", name="Send me a link").click()
    await expect(page.get_by_role("status")).to_have_text("That was refused: invalid_email.")
