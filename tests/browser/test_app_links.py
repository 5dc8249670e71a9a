import re

from playwright.async_api import Page, expect

from services.embedded.credentials import operator_credentials
from tests.browser.accessibility import check_link_page
from tests.browser.test_inbox import open_link, open_mail
from tests.nest_up import NestUp

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
    mail = await open_mail(page, "to:phone@example.com")
    tab = await open_link(mail.get_by_role("link").first)
    await page.get_by_role("link", name="Links").click()
    app_link = await page.locator("#pane").get_by_role("link", name=APP).get_attribute("href")
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Sign in to Demo")
    button = tab.get_by_role("link", name="Open Demo")
    assert await button.get_attribute("href") == app_link
    assert app_link
    found = re.fullmatch(APP + r"\?state=ends%20with%20a%20dot\.&code=([A-Za-z0-9_.]+)", app_link)
    assert found
    link, _, language = tab.url.partition("?")
    assert language == "lang=en"
    box = await button.bounding_box()
    assert box
    assert box["height"] >= 44
    await check_link_page(tab, link, "open")
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


async def test_link_of_a_client_that_asks_for_a_press_redeems_on_a_press_only(page: Page, nest: NestUp) -> None:
    operator = operator_credentials(nest.folder)
    assert operator is not None
    # Another origin than that of the page, as an app's site is.
    redirect_uri = f"{nest.base_url.replace('127.0.0.1', 'localhost')}/dev/callback"
    internal = {"authorization": f"internal {operator.internal_key}"}
    response = await page.request.post(
        "/1/2026-12-01/create_client",
        data={"name": "Pressed", "redirect_uris": [redirect_uri], "press_to_redeem": True},
        headers=internal,
    )
    client_id = (await response.json())["id"]
    looks = {"client_id": client_id, "product_name": "Kiwi", "accent_colour": "#0a6640"}
    assert (await page.request.post("/1/2026-12-01/set_client_looks", data=looks, headers=internal)).status == 200
    order = {**REQUEST, "client_id": client_id, "redirect_uri": redirect_uri, "identifier_value": "press@example.com"}
    assert (await page.request.post("/1/2026-12-01/send_magic_link", data=order)).status == 204
    mail = await open_mail(page, "to:press@example.com")
    tab = await open_link(mail.get_by_role("link").first)
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Sign in to Kiwi")
    link, _, language = tab.url.partition("?")
    assert language == "lang=en"
    assert "code" not in await tab.content()
    await check_link_page(tab, link, "continue")
    await tab.goto(f"{link}?lang=en")
    button = tab.get_by_role("button", name="Sign in")
    assert await button.evaluate("each => getComputedStyle(each).backgroundColor") == "rgb(10, 102, 64)"
    await tab.keyboard.press("Tab")
    await expect(button).to_be_focused()
    await tab.keyboard.press("Enter")
    # The app's page, which removes the code from its address at once.
    await expect(tab.get_by_role("heading", level=1)).to_have_text("This login was started elsewhere")
    alert = await tab.get_by_role("alert").text_content()
    code = re.search(r"[a-z_]*authzcode_[A-Za-z0-9]+\.[0-9a-f]{64}", alert or "")
    assert code
    redeemed = await page.request.post(
        "/1/2026-12-01/authenticate_user",
        data={
            "client_id": client_id,
            "grant_type": "authorization_code",
            "redirect_uri": redirect_uri,
            "code": code.group(),
            "code_verifier": VERIFIER,
        },
    )
    assert redeemed.status == 200


async def test_invalid_link_shows_an_error(page: Page) -> None:
    await check_link_page(page, "/open/broken", "open-broken")
    await page.goto("/open/broken?lang=de")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Dieser Link funktioniert nicht")
