"""What a user consents to, and what an app shows."""

from datetime import UTC, datetime, timedelta

from services.embedded.demo import CLIENT_ID, NEWS_ITEM_ID
from tests.stack import Stack, eventually

CLIENT = {"name": "An app of its own", "redirect_uris": ["https://app.example/callback"]}


async def test_consent_is_awaited_then_known(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    bearer, body = f"bearer {tokens['access_token']}", {"user_id": tokens["user_id"]}

    awaited = await nest.call("get_marketing_consent", body, authorization=bearer)
    stored = await nest.call("set_marketing_consent", {**body, "level": "general"}, authorization=bearer)
    known = await nest.call("get_marketing_consent", body, authorization=bearer)

    assert (awaited.status_code, awaited.json()["code"]) == (404, "awaiting_consent")
    assert (stored.status_code, stored.content) == (204, b"")
    assert known.json() == {"level": "general"}


async def test_consent_of_an_unknown_user_is_not_found(nest: Stack) -> None:
    answer = await nest.call("set_marketing_consent", {"user_id": "user_nobody", "level": "none"}, **nest.internal)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_demo_client_shows_its_news_in_both_versions(nest: Stack) -> None:
    for version in ("2020-12-14", "2021-10-06"):
        answer = await nest.call("list_news_items", {"client_id": CLIENT_ID}, version=version)

        assert answer.status_code == 200
        item = next(item for item in answer.json() if item["id"] == NEWS_ITEM_ID)
        assert item["primary"]["code"] == "generic_banner"
        assert item["fallback"] is None


async def test_an_unknown_client_has_no_news(nest: Stack) -> None:
    answer = await nest.call("list_news_items", {"client_id": "client_nobody"})

    assert (answer.status_code, answer.json()) == (200, [])


async def test_an_app_that_has_the_news_already_is_told_so(nest: Stack) -> None:
    body = {"client_id": CLIENT_ID, "locale": "en", "app_version": "1.0"}
    first = await nest.call("list_news_items", body)
    again = await nest.call("list_news_items", body, **{"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_an_item_that_ends_by_itself_makes_another_tag_at_that_moment(nest: Stack) -> None:
    client = (await nest.call("create_client", CLIENT, **nest.internal)).json()
    asking = {"client_id": client["id"]}
    ends = datetime.now(UTC) + timedelta(seconds=5)
    banner = {"payload": {"emoji": "", "title": "sale", "body": "…"}}
    order = {"primary": banner, "clients": [client["id"]], "ends_at": ends.isoformat()}
    assert (await nest.call("create_news_item", order, **nest.internal)).status_code == 200
    tags: list[str] = []

    async def status(known: str = "") -> int:
        answer = await nest.call("list_news_items", asking, **({"if-none-match": known} if known else {}))
        tags.append(answer.headers["etag"])
        return answer.status_code

    async def listed() -> bool:
        items = (await nest.call("list_news_items", asking)).json()
        return "sale" in [item["primary"]["payload"]["title"] for item in items]

    await eventually(listed, what="the item is shown")
    assert await status() == 200
    live = tags[-1]

    async def over() -> bool:
        return await status(live) == 200

    await eventually(over, what="another tag")
    assert datetime.now(UTC) >= ends
    assert set(tags[:-1]) == {live} != {tags[-1]}
    assert not await listed()


async def test_news_are_changed_put_away_and_removed(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    bearer = f"bearer {tokens['access_token']}"

    async def becomes(expected: list[str], **caller: str) -> None:
        async def so() -> bool:
            return await shown(**caller) == expected

        await eventually(so, what=f"{expected} shown")

    async def shown(**caller: str) -> list[str]:
        answer = await nest.call("list_news_items", {"client_id": CLIENT_ID}, **caller)
        return [item["primary"]["payload"]["title"] for item in answer.json() if item["id"] == created["id"]]

    def order(title: str) -> dict[str, object]:
        return {"primary": {"code": "generic_banner", "payload": {"emoji": "", "title": title, "body": "…"}}}

    created = (await nest.call("create_news_item", {**order("one"), "priority": 1}, **nest.internal)).json()
    await becomes(["one"])
    change = {**order("two"), "id": created["id"], "version": created["version"]}
    updated = await nest.call("update_news_item", change, **nest.internal)
    assert (updated.status_code, updated.json()["version"]) == (200, 2)
    late = await nest.call("update_news_item", change, **nest.internal)
    assert (late.status_code, late.json()["code"]) == (409, "news_item_changed")
    await becomes(["two"], authorization=bearer)

    away = {"user_id": tokens["user_id"], "news_item_id": created["id"]}
    assert (await nest.call("dismiss_news_item", away)).status_code == 403
    assert (await nest.call("dismiss_news_item", away, authorization=bearer)).status_code == 204
    assert (await shown(authorization=bearer), await shown()) == ([], ["two"])

    listed = (await nest.call("list_all_news_items", {}, **nest.internal)).json()
    assert created["id"] in [item["id"] for item in listed]
    assert (await nest.call("remove_news_item", {"id": created["id"]}, **nest.internal)).status_code == 204
    await becomes([])


async def test_the_alpha_is_over(nest: Stack) -> None:
    answer = await nest.call("enrol_alpha_user", {}, version="2020-12-14")

    assert (answer.status_code, answer.json()["code"]) == (410, "deprecated")
    later = await nest.call("enrol_alpha_user", {})
    assert (later.status_code, later.json()["code"]) == (404, "not_found")
