"""Bodies that readers disagree about, or that would hurt them, never get as far as Kafka."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.body import canonical, parse_object
from services.gateway.errors import MalformedBody
from tests.gateway.conftest import World

PACK = {
    "not JSON": b"client_id=c",
    "a list": b'[{"client_id": "c"}]',
    "a text": b'"c"',
    "a number": b"1",
    "null": b"null",
    "two objects": b'{"client_id": "c"}{"client_id": "c"}',
    "an object and more": b'{"client_id": "c"} x',
    "single quotes": b"{'client_id': 'c'}",
    "a trailing comma": b'{"client_id": "c",}',
    "a comment": b'{"client_id": "c"} // c',
    "NaN": b'{"client_id": NaN}',
    "Infinity": b'{"client_id": -Infinity}',
    "a number beyond all": b'{"client_id": 1e999}',
    "5000 digits": b'{"client_id": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"client_id": "c", "client_id": "d"}',
    "a key twice, escaped": b'{"client_id": "c", "client_\\u0069d": "d"}',
    "a key twice, deep": b'{"client_id": "c", "x": [{"a": 1, "a": 2}]}',
    "a lone surrogate": b'{"client_id": "\\ud800"}',
    "a lone surrogate as bytes": b'{"client_id": "\xed\xa0\x80"}',
    "bytes that are not UTF-8": b'{"client_id": "\xff"}',
    "UTF-16": '{"client_id": "c"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"client_id": "c"}',
    "NUL": b'{"client_id": "\x00"}',
    "NUL at the end": b'{"client_id": "c"}\x00',
    "a line break in a text": b'{"client_id": "\n"}',
    "deep lists": b'{"client_id": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"client_id":' * 4_000 + b"1" + b"}" * 4_000,
    "an end missing": b'{"client_id": "c"',
    "gzip": gzip.compress(b'{"client_id": "c"}'),
    "white space": b"   ",
}


@pytest.mark.parametrize("body", PACK.values(), ids=PACK.keys())
async def test_what_is_not_one_plain_object_is_malformed(world: World, body: bytes) -> None:
    for content_type in ("application/json", "text/plain"):
        headers = {"content-type": content_type, "content-encoding": "gzip"}
        answer = await world.http.post("/1/2021-10-06/list_news_items", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert world.services.heard == []


@pytest.mark.parametrize(
    ("primary", "path"),
    [
        ({"payload": {"emoji": "x", "title": "t", "body": "b", "more": 1}}, "primary.payload.more"),
        ({"payload": {"emoji": "x", "title": "t"}}, "primary.payload.body"),
        ({"payload": []}, "primary.payload"),
        ([], "primary"),
    ],
)
async def test_what_is_wrong_is_named_as_it_was_sent(world: World, primary: Any, path: str) -> None:
    answer = await world.http.post("/1/2021-10-06/create_news_item", json={"primary": primary}, headers=world.internal)
    assert answer.status_code == 422
    assert path in {error["path"] for error in answer.json()["meta"]["errors"]}


async def test_any_text_is_an_opaque_value(world: World) -> None:
    values = ["\x00", "\u2028", "😀", "$where", "a.b", "__proto__", "../..", "%00", "\\", "'; --", "x" * 60_000]
    for value in values:
        answer = await world.http.post("/1/2021-10-06/list_news_items", json={"client_id": value})
        assert answer.status_code == 204
    assert {json.loads(heard.body)["client_id"] for heard in world.services.heard} == set(values)


JSON_OBJECTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=10,
    ),
    max_size=6,
)


@given(JSON_OBJECTS, st.integers(0, 4))
def test_every_json_object_is_parsed_and_is_canonical_however_it_was_written(
    found: dict[str, Any], indent: int
) -> None:
    written = json.dumps(found, indent=indent or None, ensure_ascii=bool(indent % 2)).encode()
    backwards = json.dumps(dict(reversed(found.items()))).encode()
    assert parse_object(written) == found
    assert canonical(parse_object(written)) == canonical(parse_object(backwards))


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_malformed(body: bytes) -> None:
    try:
        found = parse_object(body)
    except MalformedBody:
        return
    assert isinstance(found, dict)
