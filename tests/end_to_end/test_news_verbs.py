"""The operators' verbs about news."""

import json
from pathlib import Path

from tests.end_to_end.test_operator import run
from tests.stack import Stack


async def test_an_item_is_published_changed_and_removed(nest: Stack, tmp_path: Path) -> None:
    file = tmp_path / "banner.json"
    banner = {"emoji": "", "title": "Down on Sunday", "body": "For an hour."}
    file.write_text(json.dumps({"primary": {"payload": banner}, "priority": 7}))
    made = await run(nest, "news", "create", str(file), "--json")
    assert (made.code, made.err) == (0, "")
    (item,) = json.loads(made.out)
    listed = await run(nest, "news", "list")
    (line,) = [line.split("\t") for line in listed.out.splitlines() if item["id"] in line]
    assert (line[1], line[5], line[8]) == ("Down on Sunday", "7", "1")
    file.write_text(json.dumps({"primary": {"payload": {**banner, "title": "Down on Monday"}}}))
    changed = await run(nest, "news", "update", item["id"], str(file), "--version", "1")
    assert (changed.code, "Down on Monday" in changed.out) == (0, True)
    late = await run(nest, "news", "update", item["id"], str(file), "--version", "1")
    assert (late.code, "news_item_changed" in late.err) == (1, True)
    unsaid = await run(nest, "news", "remove", item["id"])
    assert unsaid.code == 1
    removed = await run(nest, "news", "remove", item["id"], "--yes")
    assert (removed.code, removed.out) == (0, f"removed {item['id']}\n")
    assert item["id"] not in (await run(nest, "news", "list")).out


async def test_a_file_that_is_no_item_is_said_to_be_none(nest: Stack, tmp_path: Path) -> None:
    file = tmp_path / "banner.json"
    for text, told in (("{", "is not JSON"), ("[]", "is not a JSON object"), ("{}", "validation_failed")):
        file.write_text(text)
        done = await run(nest, "news", "create", str(file))
        assert (done.code, len(done.err.splitlines())) == (1, 1), done
        assert told in done.err
