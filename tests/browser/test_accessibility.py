import pytest
from playwright.async_api import Browser

from tests.browser.accessibility import check_page


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<h1>Demo</h1><input>", "label: "),
        ("<h1>Demo</h1><p style='color: #aaa'>soft</p>", "color-contrast: "),
        ("<h1>Demo</h1><div style='width: 500px'>wide</div>", "(dark, phone) is 140 pixels wider than the window"),
        ("<h1>Demo</h1><p>Text", ""),
    ],
    ids=("label", "contrast", "width", "none"),
)
async def test_problem_of_a_page_is_found(browser: Browser, body: str, problem: str) -> None:
    page = await browser.new_page()
    style = "body { margin: 0; background: #fff; color: #000 }"
    await page.set_content(
        f"<!doctype html><html lang=en><title>Demo</title><style>{style}</style><main>{body}</main></html>"
    )
    failure = ""
    try:
        await check_page(page, "demo")
    except AssertionError as found:
        failure = str(found)
    await page.close()
    assert problem in failure
    assert bool(problem) == bool(failure), failure
