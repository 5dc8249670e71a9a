"""Pages of the double: the customer portal, hosted invoices, receipts, and the checks of all pages."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import stripe

from tests.stripe_double.shop import Shop

RETURN_URL = "http://127.0.0.1:8080/account"
GOOD, DECLINED, SECURE = "4242 4242 4242 4242", "4000 0000 0000 0002", "4000 0027 6000 3184"


@pytest.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    """A browser that follows redirects by hand."""
    async with httpx.AsyncClient() as client:
        yield client


async def portal_of(shop: Shop, customer: str, **params: Any) -> str:
    """Create a portal session; return its URL."""
    params = {"customer": customer, "return_url": RETURN_URL, **params}
    return str((await shop.api.billing_portal.sessions.create_async(params)).url)


async def submit(browser: httpx.AsyncClient, url: str, **form: str) -> httpx.Response:
    """Submit a form; return the page that the redirect after it leads to, if there is one."""
    response = await browser.post(url, data=form)
    if response.status_code != 303:
        return response
    assert response.headers["location"].startswith("/")
    return await browser.get(str(httpx.URL(url).join(response.headers["location"])))


async def configured(shop: Shop, **features: Any) -> str:
    """Create a configuration of the portal with some features; return its ID."""
    made = await shop.api.billing_portal.configurations.create_async(
        {"features": {"invoice_history": {"enabled": False}, **features}}
    )
    return str(made.id)


def urls_in(value: Any) -> set[str]:
    """Every URL in an object, except those that the account's owner gives."""
    if isinstance(value, dict):
        given = ("return_url", "success_url", "cancel_url", "default_return_url", "doc_url")
        return {url for name, each in value.items() if name not in given for url in urls_in(each)}
    if isinstance(value, list):
        return {url for each in value for url in urls_in(each)}
    return {value} if isinstance(value, str) and value.startswith(("http:", "https:")) else set()


async def test_all_urls_of_objects_are_pages_of_the_double(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    shop.double.simulate.refund(subscription.id, amount=100)
    login = await shop.api.billing_portal.configurations.create_async(
        {"features": {"invoice_history": {"enabled": True}}, "login_page": {"enabled": True}}
    )
    await shop.api.billing_portal.sessions.create_async({"customer": subscription.customer})
    await shop.api.checkout.sessions.create_async(
        {"mode": "subscription", "line_items": [{"price": shop.price, "quantity": 1}], "success_url": RETURN_URL}
    )
    await shop.api.credit_notes.create_async({"invoice": subscription.latest_invoice, "amount": 100})
    kinds = "customer subscription invoice charge payment_intent credit_note event refund checkout.session"
    kinds += " billing_portal.session billing_portal.configuration"
    found = {url for kind in kinds.split() for url in urls_in(shop.double.objects(kind))}
    assert len(found) == 7
    assert login.login_page.url in found
    for url in found:
        assert url.startswith(shop.double.url)
        assert (await browser.get(url)).status_code == 200, url


async def test_portal_shows_plan_next_payment_card_and_invoices(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    page = (await browser.get(await portal_of(shop, subscription.customer))).text
    for text in ("Beak", "10.00 USD <small>per month", "1 February 2026, 10.00 USD", "Visa ending in 4242", "paid"):
        assert text in page
    assert f'href="{RETURN_URL}"' in page
    assert f'href="/i/{subscription.latest_invoice}"' in page


async def test_person_cancels_and_renews_in_the_portal(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    url = await portal_of(shop, subscription.customer)
    asked = (await browser.get(f"{url}/subscriptions/{subscription.id}/cancel")).text
    assert "1 February 2026" in asked
    assert not (await shop.read(subscription)).cancel_at_period_end
    before = len(shop.types())
    page = await submit(
        browser, f"{url}/subscriptions/{subscription.id}/cancel", feedback="too_expensive", comment="Too much"
    )
    assert "will be canceled on 1 February 2026" in page.text
    canceled = await shop.read(subscription)
    details = (canceled.cancellation_details.feedback, canceled.cancellation_details.comment)
    assert (canceled.cancel_at_period_end, details) == (True, ("too_expensive", "Too much"))
    await submit(browser, f"{url}/subscriptions/{subscription.id}/renew")
    assert (await shop.read(subscription)).cancel_at is None
    assert shop.types(before) == ["customer.subscription.updated"] * 2


async def test_person_changes_the_plan_and_pays_the_difference(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription, other = await shop.subscription(), await shop.another_price()
    url = await portal_of(shop, subscription.customer)
    plans = (await browser.get(f"{url}/subscriptions/{subscription.id}/update")).text
    assert re.findall(r'name="price" value="(price_\w+)"', plans) == [shop.price, other]
    asked = await browser.get(f"{url}/subscriptions/{subscription.id}/confirm?price={other}&quantity=2")
    assert "Amount due today" in asked.text
    assert "50.00 USD" in asked.text
    assert (await shop.read(subscription)).latest_invoice == subscription.latest_invoice
    page = await submit(browser, f"{url}/subscriptions/{subscription.id}/confirm", price=other, quantity="2")
    assert "has been updated" in page.text
    changed = await shop.read(subscription, "latest_invoice")
    item = changed["items"].data[0]
    assert (item.price.id, item.quantity, changed.latest_invoice.amount_paid) == (other, 2, 5000)


async def test_declined_plan_change_leaves_the_plan(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription, other = await shop.subscription(), await shop.another_price()
    shop.double.simulate.decline(subscription.customer)
    url = await portal_of(shop, subscription.customer)
    page = await submit(browser, f"{url}/subscriptions/{subscription.id}/confirm", price=other)
    assert (page.status_code, "Your card was declined." in page.text) == (402, True)
    assert (await shop.read(subscription))["items"].data[0].price.id == shop.price


async def test_plan_change_ends_a_trial_and_charges_it(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription, other = await shop.subscription(trial_period_days=14), await shop.another_price()
    url = await portal_of(shop, subscription.customer)
    asked = await browser.get(f"{url}/subscriptions/{subscription.id}/confirm?price={other}")
    assert "Your trial ends now." in asked.text
    await submit(browser, f"{url}/subscriptions/{subscription.id}/confirm", price=other)
    changed = await shop.read(subscription, "latest_invoice")
    assert (changed.status, changed.latest_invoice.amount_paid) == ("active", 3000)


async def test_configuration_limits_what_the_portal_offers(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription, offered, other = await shop.subscription(), await shop.another_price(), await shop.another_price()
    product = (await shop.api.prices.retrieve_async(offered)).product
    update = {
        "enabled": True,
        "default_allowed_updates": ["price"],
        "products": [{"product": product, "prices": [offered]}],
    }
    url = await portal_of(shop, subscription.customer, configuration=await configured(shop, subscription_update=update))
    home = (await browser.get(url)).text
    assert "Update subscription" in home
    for text in ("Cancel subscription", "Update payment method", "Invoice history"):
        assert text not in home
    for path in (f"subscriptions/{subscription.id}/cancel", "payment-methods"):
        assert (await browser.get(f"{url}/{path}")).status_code == 404
        assert (await browser.post(f"{url}/{path}", data={"card": GOOD})).status_code == 404
    path = f"{url}/subscriptions/{subscription.id}"
    assert "Quantity" not in (await browser.get(f"{path}/update")).text
    assert (await browser.post(f"{path}/confirm", data={"price": other})).status_code == 404
    await submit(browser, f"{path}/confirm", price=offered, quantity="7")
    item = (await shop.read(subscription))["items"].data[0]
    assert (item.price.id, item.quantity) == (offered, 1)


async def test_portal_can_cancel_at_once(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    cancel = {"enabled": True, "mode": "immediately"}
    url = await portal_of(shop, subscription.customer, configuration=await configured(shop, subscription_cancel=cancel))
    page = await submit(browser, f"{url}/subscriptions/{subscription.id}/cancel")
    assert "Your subscription has been canceled." in page.text
    assert (await shop.read(subscription)).status == "canceled"
    assert shop.types()[-1] == "customer.subscription.deleted"


async def test_new_card_becomes_the_default_of_customer_and_subscriptions(
    shop: Shop, browser: httpx.AsyncClient
) -> None:
    subscription = await shop.subscription()
    url = await portal_of(shop, subscription.customer) + "/payment-methods"
    for card, text in (("12", "number is invalid"), (DECLINED, "was declined"), (SECURE, "Complete authentication")):
        assert text in (await browser.post(url, data={"card": card})).text
    assert (await browser.post(url, data={"card": SECURE, "authentication": "fail"})).status_code == 402
    before = len(shop.types())
    page = await submit(browser, url, card=SECURE, authentication="complete")
    assert "Visa ending in 3184" in page.text
    assert shop.types(before) == ["payment_method.attached", "customer.updated"]


@pytest.mark.parametrize(
    ("completion", "location"),
    [
        ({"type": "redirect", "redirect": {"return_url": "http://127.0.0.1:1/done"}}, "http://127.0.0.1:1/done"),
        ({"type": "hosted_confirmation"}, "SESSION/done?done=cancels"),
        ({"type": "portal_homepage"}, "SESSION/home?done=cancels"),
    ],
)
async def test_flow_leads_to_its_task_and_ends_as_it_says(
    shop: Shop, browser: httpx.AsyncClient, completion: Any, location: str
) -> None:
    subscription = await shop.subscription()
    cancel = {"subscription": subscription.id}
    flow = {"type": "subscription_cancel", "subscription_cancel": cancel, "after_completion": completion}
    url = await portal_of(shop, subscription.customer, flow_data=flow)
    first = await browser.get(url)
    session = httpx.URL(url).path
    assert first.headers["location"] == f"{session}/subscriptions/{subscription.id}/cancel"
    done = await browser.post(url + f"/subscriptions/{subscription.id}/cancel")
    assert done.headers["location"] == location.replace("SESSION", session)
    assert (await shop.read(subscription)).cancel_at_period_end
    if not location.startswith("http:"):
        assert (
            "canceled at the end of the period"
            in (await browser.get(httpx.URL(url).join(done.headers["location"]))).text
        )


async def test_confirmation_flow_changes_to_its_price_and_quantity(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription, other = await shop.subscription(), await shop.another_price()
    item = {"id": subscription["items"].data[0].id, "price": other, "quantity": 3}
    confirm = {"subscription": subscription.id, "items": [item]}
    flow = {"type": "subscription_update_confirm", "subscription_update_confirm": confirm}
    url = await portal_of(shop, subscription.customer, flow_data=flow)
    page = await browser.get(url, follow_redirects=True)
    assert "Confirm your update" in page.text
    await submit(browser, str(page.url), price=shop.price, quantity="9")
    changed = (await shop.read(subscription))["items"].data[0]
    assert (changed.price.id, changed.quantity) == (other, 3)


async def test_flow_of_a_disabled_feature_is_refused(shop: Shop) -> None:
    subscription = await shop.subscription()
    await configured(shop)
    flow = {"type": "payment_method_update"}
    with pytest.raises(stripe.InvalidRequestError, match="feature in the portal configuration is disabled"):
        await portal_of(shop, subscription.customer, flow_data=flow)


async def test_portal_link_expires_and_shows_nobody_else(
    shop: Shop, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, foreign = await shop.subscription(), await shop.subscription()
    url = await portal_of(shop, mine.customer)
    assert (await browser.get(f"{url}/subscriptions/{foreign.id}/cancel")).status_code == 404
    assert (await browser.post(f"{url}/subscriptions/{foreign.id}/cancel")).status_code == 404
    assert (await browser.get(f"{url}x")).status_code == 404
    (session,) = shop.double.account.all("billing_portal.session")
    monkeypatch.setattr("services.stripe_double.pages.portal.time.time", lambda: session["_expires"] + 1)
    assert "This link has expired" in (await browser.get(url)).text
    assert not (await shop.read(foreign)).cancel_at_period_end


async def test_login_page_opens_the_portal_of_an_address(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    made = await shop.api.billing_portal.configurations.create_async(
        {"features": {"subscription_cancel": {"enabled": True}}, "login_page": {"enabled": True}}
    )
    page = made.login_page.url
    assert (await browser.post(page, data={"email": "nobody@example.com"})).status_code == 404
    assert "Beak" in (await submit(browser, page, email="ada@example.com")).text
    assert subscription.status == "active"


async def test_open_invoice_is_paid_on_its_page(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.past_due_subscription()
    invoice = await shop.api.invoices.retrieve_async(subscription.latest_invoice)
    page = await browser.get(invoice.hosted_invoice_url)
    for text in ("Invoice", "10.00 USD", "1 of Beak", "1 February 2026 to 1 March 2026", "Pay 10.00 USD"):
        assert text in page.text
    before = len(shop.types())
    declined = await browser.post(invoice.hosted_invoice_url, data={"card": "4000 0000 0000 0341"})
    assert (declined.status_code, "Your card was declined." in declined.text) == (402, True)
    assert "invoice.payment_failed" in shop.types(before)
    asked = await browser.post(invoice.hosted_invoice_url, data={"card": SECURE})
    assert "Complete authentication" in asked.text
    paid = await submit(browser, invoice.hosted_invoice_url, card=SECURE, authentication="complete")
    assert "Invoice paid" in paid.text
    assert (await shop.read(subscription)).status == "active"
    assert shop.types()[-2:] == ["invoice.payment_succeeded", "customer.subscription.updated"]
    again = await browser.post(invoice.hosted_invoice_url, data={"card": GOOD})
    assert "Invoice paid" in again.text


async def test_invoice_page_lists_discount_tax_and_balance(shop: Shop, browser: httpx.AsyncClient) -> None:
    coupon = await shop.api.coupons.create_async({"percent_off": 50, "duration": "once"})
    rate = await shop.api.tax_rates.create_async({"display_name": "VAT", "percentage": 20, "inclusive": False})
    customer = await shop.customer(balance=-100)
    subscription = await shop.subscription(customer.id, discounts=[{"coupon": coupon.id}], default_tax_rates=[rate.id])
    text = (await browser.get(f"{shop.double.url}/i/{subscription.latest_invoice}")).text
    rows = dict(re.findall(r'<th scope="row">([^<]+)</th><td>([^<]+)</td>', text))
    assert rows == {
        "Subtotal": "10.00 USD",
        "Discount": "\N{MINUS SIGN}5.00 USD",
        "VAT 20 %, added": "1.00 USD",
        "Total": "6.00 USD",
        "Applied balance": "\N{MINUS SIGN}1.00 USD",
        "Amount due": "5.00 USD",
        "Paid": "\N{MINUS SIGN}5.00 USD",
    }


async def test_pdf_of_an_invoice_has_its_text_and_a_valid_table(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    invoice = await shop.api.invoices.retrieve_async(subscription.latest_invoice)
    response = await browser.get(invoice.invoice_pdf)
    content = response.content
    assert response.headers["content-type"] == "application/pdf"
    assert f"(Invoice {invoice.number})".encode() in content
    start = int(content.rpartition(b"startxref\n")[2].split()[0])
    offsets = [int(each) for each in re.findall(rb"(\d{10}) 00000 n", content[start:])]
    assert [content[offset:].split(b" ", 1)[0] for offset in offsets] == [b"%d" % n for n in range(1, len(offsets) + 1)]


async def test_receipt_names_refund_and_dispute(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.subscription()
    shop.double.simulate.refund(subscription.id, amount=250)
    shop.double.simulate.dispute(subscription.id)
    (charge,) = shop.double.objects("charge")
    text = (await browser.get(charge["receipt_url"])).text
    for part in ("10.00 USD", "Visa ending in 4242", "2.50 USD on 1 January 2026", "fraudulent, needs response"):
        assert part in text
    for identifier in (charge["id"], charge["payment_intent"]):
        assert (await browser.get(f"{shop.double.url}/test/payments/{identifier}")).text == text


async def test_failed_charge_and_draft_have_no_page(shop: Shop, browser: httpx.AsyncClient) -> None:
    subscription = await shop.past_due_subscription()
    failed = shop.double.objects("charge")[-1]
    assert failed["receipt_url"] is None
    assert (await browser.get(f"{shop.double.url}/receipts/{failed['id']}")).status_code == 404
    shop.double.simulate.recover(subscription.customer)
    await shop.advance(days=27, hours=22, minutes=30)
    draft = next(each for each in shop.double.objects("invoice") if each["status"] == "draft")
    assert (draft["hosted_invoice_url"], draft["invoice_pdf"]) == (None, None)
    for end in ("", "/pdf"):
        assert (await browser.get(f"{shop.double.url}/i/{draft['id']}{end}")).status_code == 404


FORMS: dict[str, dict[str, str]] = {
    "expiry in the past": {"card": GOOD, "expiry": "12/25"},
    "expiry that is no month": {"card": GOOD, "expiry": "13/30"},
    "short security code": {"card": GOOD, "cvc": "1"},
    "wrong security code": {"card": "4000 0000 0000 0127"},
    "processing error": {"card": "4000 0000 0000 0119"},
    "real card": {"card": "4111 1111 1111 1111"},
    "mistyped card": {"card": "4242 4242 4242 4241"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_invalid_card_form_is_refused(shop: Shop, browser: httpx.AsyncClient, form: dict[str, str]) -> None:
    customer = await shop.customer(None)
    page = await browser.post(await portal_of(shop, customer.id) + "/payment-methods", data=form)
    assert (page.status_code, page.text.count('role="alert"')) == (402, 1)
    assert shop.double.objects("payment_method") == []


REQUESTS: dict[str, tuple[Callable[[str], str], dict[str, Any], int]] = {
    "foreign origin": (str, {"headers": {"origin": "https://evil.example"}}, 403),
    "null origin": (str, {"headers": {"origin": "null"}}, 403),
    "foreign host": (str, {"headers": {"host": "evil.example"}}, 421),
    "long form": (str, {"data": {"card": "1" * 30_000}}, 413),
    "many fields": (str, {"data": {str(number): "" for number in range(200)}}, 413),
    "unknown object": (lambda url: f"{url}/i/in_none", {}, 404),
}


@pytest.mark.parametrize(("path", "options", "status"), REQUESTS.values(), ids=REQUESTS)
async def test_forms_are_taken_from_the_same_origin_only(
    shop: Shop, browser: httpx.AsyncClient, path: Callable[[str], str], options: dict[str, Any], status: int
) -> None:
    subscription = await shop.past_due_subscription()
    url = f"{shop.double.url}/i/{subscription.latest_invoice}" if path is str else path(shop.double.url)
    assert (await browser.post(url, **{"data": {"card": GOOD}, **options})).status_code == status
    assert (await shop.read(subscription)).status == "past_due"


async def test_pages_have_strict_headers_and_cached_files(shop: Shop, browser: httpx.AsyncClient) -> None:
    page = await browser.get(f"{shop.double.url}/i/{(await shop.subscription()).latest_invoice}")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    (style,) = re.findall(r'href="(/static/\w+/stripe.css)"', page.text)
    file = await browser.get(shop.double.url + style)
    assert (file.headers["content-type"], "immutable" in file.headers["cache-control"]) == (
        "text/css; charset=utf-8",
        True,
    )
    assert (await browser.get(f"{shop.double.url}/static/none.css")).status_code == 404
    assert (await browser.put(str(page.url))).status_code == 405
