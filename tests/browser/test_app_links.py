import re

from playwright.async_api import Page, expect

from tests.browser.test_unsubscribe import assert_legible

APP = "app.getbeak.beak:/callback"
REQUEST = {
    "client_id": "client_000000C2kdCzNlbL1BqR5FeMatItU",
    "redirect_uri": APP,
    "state": "ends with a dot.",
    "code_challenge_method": "S256",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "identifier_type": "email",
    "identifier_value": "phone@example.com",
}
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


async def test_link_to_an_app_opens_it_from_a_page(page: Page) -> None:
    response = await page.request.post("/1/2021-10-06/send_magic_link", data=REQUEST)
    assert response.status == 204
    await page.goto("/dev/inbox")
    article = page.locator("article", has_text="To phone@example.com").first
    app_link = await article.get_by_role("link", name=APP).get_attribute("href")
    async with page.context.expect_page() as opened:
        await article.frame_locator("iframe").get_by_role("link").first.click()
    tab = await opened.value
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Sign in to Beak")
    button = tab.get_by_role("link", name="Open Beak")
    assert await button.get_attribute("href") == app_link
    assert app_link
    found = re.fullmatch(APP + r"\?state=ends%20with%20a%20dot\.&code=([A-Za-z0-9_.]+)", app_link)
    assert found
    link, _, language = tab.url.partition("?")
    assert language == "lang=en"
    box = await button.bounding_box()
    assert box
    assert box["height"] >= 44
    await assert_legible(tab, link)
    # The page was opened many times, as by a scanner, and the code still works.
    redeemed = await page.request.post(
        "/1/2021-10-06/authenticate_user",
        data={
            "client_id": REQUEST["client_id"],
            "grant_type": "authorization_code",
            "redirect_uri": APP,
            "code": found.group(1),
            "code_verifier": VERIFIER,
        },
    )
    assert redeemed.status == 200


async def test_invalid_link_shows_an_error(page: Page) -> None:
    await assert_legible(page, "/open/broken")
    await page.goto("/open/broken?lang=de")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Dieser Link funktioniert nicht")
