"""What a user consents to, and what an app shows."""

from services.embedded.demo import CLIENT_ID, NEWS_ITEM_ID
from tests.stack import Stack


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


async def test_the_alpha_is_over(nest: Stack) -> None:
    answer = await nest.call("enrol_alpha_user", {}, version="2020-12-14")

    assert (answer.status_code, answer.json()["code"]) == (410, "deprecated")
    later = await nest.call("enrol_alpha_user", {})
    assert (later.status_code, later.json()["code"]) == (404, "not_found")
