"""What operators order of news ends in the audit, by the items' ids."""

from shared.ids import new_message_id
from shared.messages import Caller
from shared.messages.news import (
    CreateNewsItem,
    DismissNewsItem,
    ListAllNewsItems,
    NewsItemFields,
    RemoveNewsItem,
    UpdateNewsItem,
)
from tests.news.test_handlers import ANN, banner
from tests.service_harness import Refused, ServiceHarness

OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")


async def test_every_order_about_an_item_is_told_with_its_id(harness: ServiceHarness) -> None:
    item_id = (await harness.deliver(CreateNewsItem(primary=banner()), caller=OPERATOR))["id"]
    for order in (
        UpdateNewsItem(id=item_id, primary=banner("Another")),
        DismissNewsItem(user_id="user_ann", news_item_id=item_id),
        RemoveNewsItem(id=item_id),
    ):
        await harness.deliver(order, caller=OPERATOR)
    assert [(told.action, told.refused_as, told.resource_id) for told in harness.recorded] == [
        ("create_news_item", None, item_id),
        ("update_news_item", None, item_id),
        ("dismiss_news_item", None, item_id),
        ("remove_news_item", None, item_id),
    ]


async def test_a_refusal_is_told_without_what_was_typed(harness: ServiceHarness) -> None:
    await harness.deliver(CreateNewsItem(id="taken", primary=banner()), caller=OPERATOR)
    harness.clear()
    orders: tuple[NewsItemFields | RemoveNewsItem, ...] = (
        CreateNewsItem(id="taken", primary=banner()),
        UpdateNewsItem(id="taken", primary=banner(), version=9),
        UpdateNewsItem(id="typed", primary=banner()),
        RemoveNewsItem(id="typed"),
    )
    for order in orders:
        try:
            await harness.deliver(order, caller=OPERATOR)
        except Refused:
            continue
        raise AssertionError(order)
    assert [(told.action, told.refused_as, told.resource_id) for told in harness.recorded] == [
        ("create_news_item", "news_item_already_exists", "taken"),
        ("update_news_item", "news_item_changed", "taken"),
        ("update_news_item", "not_found", None),
        ("remove_news_item", "not_found", None),
    ]


async def test_a_second_delivery_is_told_no_second_time(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(CreateNewsItem(primary=banner()), caller=OPERATOR, id=message_id)
    assert [told.message_id for told in harness.recorded] == [message_id]


async def test_what_users_put_away_is_not_told_and_what_operators_list_is(harness: ServiceHarness) -> None:
    item_id = (await harness.deliver(CreateNewsItem(primary=banner()), caller=OPERATOR))["id"]
    harness.clear()
    await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id=item_id), caller=ANN)
    assert harness.recorded == []
    await harness.deliver(ListAllNewsItems(), caller=OPERATOR)
    assert [told.action for told in harness.recorded] == ["list_all_news_items"]
