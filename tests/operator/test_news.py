import json
from typing import Any

import pytest

from tests.operator.conftest import NestStub
from tests.operator.responses import ITEM


def test_item_is_read_from_standard_input(nest: NestStub) -> None:
    item = {"primary": {"payload": {"emoji": "", "title": "Down", "body": "For an hour."}}}
    assert nest.run("news", "create", "-", stdin=json.dumps(item)).exit_code == 0
    assert nest.calls == [("create_news_item", item)]


def test_list_reads_all_pages(nest: NestStub, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [[{**ITEM, "id": f"newsitem_{number}"} for number in range(1000)], [ITEM]]
    cursors: list[str | None] = []

    def call(_method: str, body: dict[str, Any]) -> Any:
        cursors.append(body.get("cursor"))
        return pages.pop(0)

    monkeypatch.setattr(nest, "call", call)
    assert len(nest.run("news", "list").stdout.splitlines()) == 1 + 1001
    assert cursors == [None, "newsitem_999"]
