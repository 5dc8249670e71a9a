"""What operators see of mails and texts."""

import json

from tests.end_to_end.test_operator import run
from tests.stack import Stack


async def test_mails_are_found_by_address_and_say_to_nobody_whom_they_went_to(nest: Stack, email: str) -> None:
    await nest.log_in(email)
    await nest.log_in(email.replace("ada", "ada.second"))
    listed = await run(nest, "deliveries", "list", "--to", email.upper(), "--json")
    assert (listed.code, listed.err) == (0, "")
    (mail,) = json.loads(listed.out)["deliveries"]
    assert (mail["medium"], mail["template"], mail["state"], mail["attempts"]) == (
        "mail",
        "magic-link",
        "handed_over",
        1,
    )
    assert "@example.com" not in listed.out.replace(mail["message_id"], "")
    assert email not in listed.out
    people = await run(nest, "deliveries", "list", "--to", email, "--channel", "mail")
    assert people.code == 2
    people = await run(nest, "deliveries", "list", "--to", email, "--medium", "mail")
    assert [line.split("\t")[2] for line in people.out.splitlines()] == ["TEMPLATE", "magic-link"]


async def test_a_list_is_filtered_and_read_page_by_page(nest: Stack, email: str) -> None:
    for _ in range(3):
        await nest.log_in(email)
    seen, cursor = [], None
    while True:
        answer = await nest.call("list_deliveries", {"recipient": email, "limit": 2, "cursor": cursor}, **nest.internal)
        said = answer.json()
        seen += [each["id"] for each in said["deliveries"]]
        if (cursor := said["next_cursor"]) is None:
            break
    assert len(seen) == len(set(seen)) == 3
    for filters, count in (
        ({"state": "failed"}, 0),
        ({"medium": "text"}, 0),
        ({"template": "magic-link", "since": "2020-01-01T00:00:00Z"}, 3),
        ({"until": "2020-01-01T00:00:00Z"}, 0),
        ({"client_id": "client_nobody"}, 0),
    ):
        answer = await nest.call("list_deliveries", {"recipient": email, **filters}, **nest.internal)
        assert len(answer.json()["deliveries"]) == count, filters
