"""News items as an app lists them, over two gateways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.embedded.demo import CLIENT_ID, NEWS_ITEM_ID
from tests.stack import Stack, eventually


async def test_demo_client_lists_its_news_in_both_versions(nest: Stack) -> None:
    for version in ("2020-12-14", "2021-10-06"):
        response = await nest.call("list_news_items", {"client_id": CLIENT_ID}, version=version)

        assert response.status_code == 200
        item = next(item for item in response.json() if item["id"] == NEWS_ITEM_ID)
        assert item["primary"]["code"] == "generic_banner"
        assert item["fallback"] is None


async def test_unknown_client_has_no_news(nest: Stack) -> None:
    response = await nest.call("list_news_items", {"client_id": "client_missing"})

    assert (response.status_code, response.json()) == (200, [])


async def test_unchanged_list_is_not_sent_again(nest: Stack) -> None:
    body = {"client_id": CLIENT_ID, "locale": "en", "app_version": "1.0"}
    first = await nest.call("list_news_items", body)
    again = await nest.call("list_news_items", body, **{"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_etag_changes_when_an_item_ends(nest: Stack) -> None:
    body = {"client_id": (await nest.create_client())["id"]}
    ends = datetime.now(UTC) + timedelta(seconds=6)
    banner = {"payload": {"emoji": "", "title": "sale", "body": "…"}}
    item = {"primary": banner, "clients": [body["client_id"]], "ends_at": ends.isoformat()}
    assert (await nest.call("create_news_item", item, **nest.internal)).status_code == 200
    etags: list[str] = []

    async def status(etag: str = "") -> int:
        response = await nest.call("list_news_items", body, **({"if-none-match": etag} if etag else {}))
        etags.append(response.headers["etag"])
        return response.status_code

    async def listed() -> bool:
        items = (await nest.call("list_news_items", body)).json()
        return "sale" in [item["primary"]["payload"]["title"] for item in items]

    await eventually(listed, within=6, what="the item")
    assert await status() == 200
    live = etags[-1]

    async def changed() -> bool:
        return await status(live) == 200

    await eventually(changed, what="another ETag")
    assert datetime.now(UTC) >= ends
    assert set(etags[:-1]) == {live} != {etags[-1]}
    assert not await listed()


async def test_item_is_updated_dismissed_and_removed(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    bearer = f"bearer {tokens['access_token']}"

    async def titles(**headers: str) -> list[str]:
        response = await nest.call("list_news_items", {"client_id": CLIENT_ID}, **headers)
        return [item["primary"]["payload"]["title"] for item in response.json() if item["id"] == created["id"]]

    async def becomes(expected: list[str], **headers: str) -> None:
        async def listed() -> bool:
            return await titles(**headers) == expected

        await eventually(listed, what=f"the titles {expected}")

    def banner(title: str) -> dict[str, Any]:
        return {"primary": {"code": "generic_banner", "payload": {"emoji": "", "title": title, "body": "…"}}}

    created = (await nest.call("create_news_item", {**banner("one"), "priority": 1}, **nest.internal)).json()
    await becomes(["one"])
    change = {**banner("two"), "id": created["id"], "version": created["version"]}
    updated = await nest.call("update_news_item", change, **nest.internal)
    assert (updated.status_code, updated.json()["version"]) == (200, 2)
    late = await nest.call("update_news_item", change, **nest.internal)
    assert (late.status_code, late.json()["code"]) == (409, "news_item_changed")
    await becomes(["two"], authorization=bearer)

    dismissal = {"user_id": tokens["user_id"], "news_item_id": created["id"]}
    assert (await nest.call("dismiss_news_item", dismissal)).status_code == 403
    assert (await nest.call("dismiss_news_item", dismissal, authorization=bearer)).status_code == 204
    assert (await titles(authorization=bearer), await titles()) == ([], ["two"])

    listed = (await nest.call("list_all_news_items", {}, **nest.internal)).json()
    assert created["id"] in [item["id"] for item in listed]
    assert (await nest.call("remove_news_item", {"id": created["id"]}, **nest.internal)).status_code == 204
    await becomes([])


async def test_alpha_enrolment_is_deprecated_and_then_unknown(nest: Stack) -> None:
    response = await nest.call("enrol_alpha_user", {}, version="2020-12-14")

    assert (response.status_code, response.json()["code"]) == (410, "deprecated")
    later = await nest.call("enrol_alpha_user", {})
    assert (later.status_code, later.json()["code"]) == (404, "not_found")
