"""A paused partition by the `nest` command: listed, named by the doctor, resumed and audited."""

from __future__ import annotations

import json

from services.operator.client import VERSION
from tests.end_to_end.flows import operator_call, publish
from tests.stack import Stack, eventually


async def paused(nest: Stack) -> list[dict[str, object]]:
    response = await nest.call("list_paused_partitions", {}, version=VERSION, **nest.internal)
    assert response.status_code == 200, response.text
    partitions: list[dict[str, object]] = response.json()["partitions"]
    return partitions


async def test_paused_partition_is_listed_named_by_the_doctor_and_resumed(nest: Stack) -> None:
    poison = [(b"poison", [("type", b"news.poison")])] * 14
    await publish(nest, *poison, topic="news.commands")
    (pause,) = await eventually(lambda: paused(nest), what="the pause")
    assert str(pause["id"]).startswith("news/news.commands/")
    listed = await nest.command("partitions", "list")
    assert f"{pause['id']}\t10 dead letters in a row\t" in listed.out
    examined = await nest.command("doctor", "--json", **nest.environment)
    says = [each["says"] for each in json.loads(examined.out) if each["area"] == "partitions"]
    assert [each.startswith(f"{pause['id']} is paused since ") for each in says] == [True]
    resumed = await nest.command("partitions", "resume", str(pause["id"]), "--dead-letter", "--yes")
    assert (resumed.code, resumed.out) == (0, f"resumed {pause['id']}\n")

    async def handled() -> bool:
        letters = (await operator_call(nest, "list_dead_letters", filter={"type": "news.poison"}))["letters"]
        return len(letters) == len(poison) and not await paused(nest)

    await eventually(handled, what="the waiting records")
    entries = (await operator_call(nest, "list_audit_entries", action="resume_partition"))["entries"]
    assert [(entry["outcome"], entry["resource_id"]) for entry in entries] == [("done", pause["id"])]
    again = await nest.command("partitions", "resume", str(pause["id"]))
    assert (again.code, "partition_not_paused" in again.err) == (1, True)
