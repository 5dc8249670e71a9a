"""Audit entries of operators' commands and queries about news items."""

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


async def test_every_command_is_audited_with_the_item_id(harness: ServiceHarness) -> None:
    item_id = (await harness.deliver(CreateNewsItem(primary=banner()), caller=OPERATOR))["id"]
    for command in (
        UpdateNewsItem(id=item_id, primary=banner("Another")),
        DismissNewsItem(user_id="user_ann", news_item_id=item_id),
        RemoveNewsItem(id=item_id),
    ):
        await harness.deliver(command, caller=OPERATOR)
    assert [(entry.action, entry.refused_as, entry.resource_id) for entry in harness.recorded] == [
        ("create_news_item", None, item_id),
        ("update_news_item", None, item_id),
        ("dismiss_news_item", None, item_id),
        ("remove_news_item", None, item_id),
    ]


async def test_refusal_is_audited_without_the_operators_input(harness: ServiceHarness) -> None:
    await harness.deliver(CreateNewsItem(id="taken", primary=banner()), caller=OPERATOR)
    harness.clear()
    commands: tuple[NewsItemFields | RemoveNewsItem, ...] = (
        CreateNewsItem(id="taken", primary=banner()),
        UpdateNewsItem(id="taken", primary=banner(), version=9),
        UpdateNewsItem(id="typed", primary=banner()),
        RemoveNewsItem(id="typed"),
    )
    for command in commands:
        try:
            await harness.deliver(command, caller=OPERATOR)
        except Refused:
            continue
        raise AssertionError(command)
    assert [(entry.action, entry.refused_as, entry.resource_id) for entry in harness.recorded] == [
        ("create_news_item", "news_item_already_exists", "taken"),
        ("update_news_item", "news_item_changed", "taken"),
        ("update_news_item", "not_found", None),
        ("remove_news_item", "not_found", None),
    ]


async def test_second_delivery_is_not_audited_again(harness: ServiceHarness) -> None:
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(CreateNewsItem(primary=banner()), caller=OPERATOR, id=message_id)
    assert [entry.message_id for entry in harness.recorded] == [message_id]


async def test_dismissals_of_users_are_not_audited_but_lists_of_operators_are(harness: ServiceHarness) -> None:
    item_id = (await harness.deliver(CreateNewsItem(primary=banner()), caller=OPERATOR))["id"]
    harness.clear()
    await harness.deliver(DismissNewsItem(user_id="user_ann", news_item_id=item_id), caller=ANN)
    assert harness.recorded == []
    await harness.deliver(ListAllNewsItems(), caller=OPERATOR)
    assert [entry.action for entry in harness.recorded] == ["list_all_news_items"]
