from __future__ import annotations

import gzip
import json
import time
from ipaddress import ip_address, ip_network
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.errors import MalformedBody, ValidationFailed
from services.gateway.methods import METHODS
from services.gateway.requests import (
    MAX_LANGUAGES,
    HttpRequest,
    accepted_languages,
    canonical,
    client_ip,
    parse_object,
    validated,
)
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, SendMagicLink
from shared.messages.billing.usage import ReportUsage
from shared.messages.languages import language_tag
from tests.gateway.conftest import LINK, GatewayStack

MALFORMED = {
    "not JSON": b"client_id=c",
    "array": b'[{"client_id": "c"}]',
    "string": b'"c"',
    "number": b"1",
    "null": b"null",
    "two objects": b'{"client_id": "c"}{"client_id": "c"}',
    "object with trailing text": b'{"client_id": "c"} x',
    "single quotes": b"{'client_id': 'c'}",
    "trailing comma": b'{"client_id": "c",}',
    "comment": b'{"client_id": "c"} // c',
    "NaN": b'{"client_id": NaN}',
    "Infinity": b'{"client_id": -Infinity}',
    "number out of range": b'{"client_id": 1e999}',
    "5000 digits": b'{"client_id": ' + b"9" * 5000 + b"}",
    "duplicate key": b'{"client_id": "c", "client_id": "d"}',
    "duplicate key, escaped": b'{"client_id": "c", "client_\\u0069d": "d"}',
    "duplicate key, nested": b'{"client_id": "c", "x": [{"a": 1, "a": 2}]}',
    "lone surrogate": b'{"client_id": "\\ud800"}',
    "lone surrogate as bytes": b'{"client_id": "\xed\xa0\x80"}',
    "not UTF-8": b'{"client_id": "\xff"}',
    "UTF-16": '{"client_id": "c"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"client_id": "c"}',
    "NUL": b'{"client_id": "\x00"}',
    "trailing NUL": b'{"client_id": "c"}\x00',
    "line break in a string": b'{"client_id": "\n"}',
    "deep arrays": b'{"client_id": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"client_id":' * 4_000 + b"1" + b"}" * 4_000,
    "missing end": b'{"client_id": "c"',
    "gzip": gzip.compress(b'{"client_id": "c"}'),
    "white space": b"   ",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_body_that_is_not_one_json_object_is_malformed(stack: GatewayStack, body: bytes) -> None:
    for content_type in ("application/json", "text/plain"):
        headers = {"content-type": content_type, "content-encoding": "gzip"}
        response = await stack.http.post("/1/2021-10-06/list_news_items", content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "malformed_body")
    assert stack.services.received == []


@pytest.mark.parametrize(
    ("primary", "path"),
    [
        ({"payload": {"emoji": "x", "title": "t", "body": "b", "more": 1}}, "primary.payload.more"),
        ({"payload": {"emoji": "x", "title": "t"}}, "primary.payload.body"),
        ({"payload": []}, "primary.payload"),
        ([], "primary"),
    ],
)
async def test_error_path_names_the_field_as_sent(stack: GatewayStack, primary: Any, path: str) -> None:
    response = await stack.http.post(
        "/1/2021-10-06/create_news_item", json={"primary": primary}, headers=stack.internal
    )
    assert response.status_code == 422
    assert path in {error["path"] for error in response.json()["meta"]["errors"]}


async def test_any_unicode_string_is_an_opaque_value(stack: GatewayStack) -> None:
    values = ["\x00", "\u2028", "😀", "$where", "a.b", "__proto__", "../..", "%00", "\\", "'; --", "x" * 128]
    for value in values:
        response = await stack.http.post("/1/2021-10-06/list_news_items", json={"client_id": value})
        assert response.status_code == 204
    assert {json.loads(envelope.body)["client_id"] for envelope in stack.services.received} == set(values)


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
def test_equal_objects_have_one_canonical_form(fields: dict[str, Any], indent: int) -> None:
    written = json.dumps(fields, indent=indent or None, ensure_ascii=bool(indent % 2)).encode()
    reordered = json.dumps(dict(reversed(fields.items()))).encode()
    assert parse_object(written) == fields
    assert canonical(parse_object(written)) == canonical(parse_object(reordered))


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_malformed(body: bytes) -> None:
    try:
        fields = parse_object(body)
    except MalformedBody:
        return
    assert isinstance(fields, dict)


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", ()),
        ("de", ("de",)),
        ("gsw-CH, de-CH;q=0.9, de;q=0.8, en;q=0.5", ("gsw-CH", "de-CH", "de", "en")),
        ("en;q=0.5,fr;q=0.9 , it", ("it", "fr", "en")),
        ("en;q=0.7,fr;q=0.7", ("en", "fr")),
        ("fr;q=0, de;q=0.000, *;q=0.1, es ; q=1.000", ("es",)),
        ("zh-Hant-TW", ("zh-Hant-TW",)),
        ("DE-at;Q=0.4", ("DE-at",)),
        ("de;q=2, de;q=-1, de;q=a, de;q=, de;q=.", ()),
        ("de;q=0.1234, fr;q=0.5;x=1, es;x=1, it;q= .7", ("es", "it", "fr", "de")),
        ("*, de;q=0.5", ("de",)),
        ("de-*-AT;q=0.9, *-CH", ("de-AT",)),
        ("de_AT, de-CH-u-mu-celsius;q=0.9, i-klingon;q=0.8, C;q=0.7", ("de-AT", "de-CH", "tlh")),
        ("'; drop table, {$gt: 1}, a, en us, ../x, \u00e4\u00f6, ,,", ()),
        ("a-b-c-d-e-f-g, en", ("en",)),
        ("de-" * 5_000 + ", fr", ("fr",)),
        (", ".join(f"{chr(97 + n)}a" for n in range(20)), tuple(f"{chr(97 + n)}a" for n in range(MAX_LANGUAGES))),
    ],
)
def test_accepted_languages_are_sorted_by_weight(header: str, tags: tuple[str, ...]) -> None:
    assert accepted_languages(header) == tags


def test_languages_of_a_request_come_from_all_its_headers() -> None:
    headers = [(b"accept-language", b"en;q=0.5"), (b"other", b"fr"), (b"accept-language", b"de_AT, \xff")]
    assert HttpRequest({"headers": headers}, AsyncMock(), dict(headers)).languages == ("de-AT", "en")


@given(header=st.text(max_size=200) | st.lists(st.sampled_from([*"aq0;=,. -*"]), max_size=80).map("".join))
def test_any_accept_language_header_gives_valid_tags(header: str) -> None:
    tags = accepted_languages(header)
    assert len(tags) <= MAX_LANGUAGES
    assert all(language_tag(tag) == tag for tag in tags)


def test_long_accept_language_headers_are_parsed_in_linear_time() -> None:
    began = time.process_time()
    for header in ("a" * 16_000, "," * 16_000, "de;q=0.1," * 2_000, "-" * 16_000, "de" + " " * 16_000 + "x"):
        accepted_languages(header)
    assert time.process_time() - began < 0.5


PROXIES = ("10.0.0.0/8", "2001:db8::/32")


def ip(peer: str, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str | None:
    return ip_of_headers(peer, *(("x-forwarded-for", value) for value in forwarded), trusted=trusted)


def ip_of_headers(peer: str, *headers: tuple[str, str], trusted: tuple[str, ...] = PROXIES) -> str | None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return client_ip({"client": (peer, 1), "headers": encoded}, [ip_network(network) for network in trusted])


def test_client_ip_is_the_peer_unless_it_is_a_trusted_proxy() -> None:
    assert ip("192.0.2.1", "198.51.100.1") == "192.0.2.1"
    assert ip("10.0.0.1", "198.51.100.1", trusted=()) == "10.0.0.1"


def test_client_ip_is_the_rightmost_address_that_is_no_trusted_proxy() -> None:
    assert ip("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.9.9.9") == "198.51.100.1"
    assert ip("10.0.0.1", "203.0.113.9", "198.51.100.1") == "198.51.100.1"
    assert ip("2001:db8::1", "2001:4860::8") == "2001:4860::8"
    assert ip("::ffff:10.0.0.1", "198.51.100.1") == "198.51.100.1"


@pytest.mark.parametrize(
    "forwarded",
    ["", " ", "unknown", "evil\x00", "é", ",,,", "_hidden", "198.51.100.1:port", "[198.51.100.1", "999.1.1.1"],
)
def test_client_ip_is_the_proxy_if_the_header_is_malformed(forwarded: str) -> None:
    assert ip("10.0.0.1", forwarded) == "10.0.0.1"
    assert ip("10.0.0.1", f"192.0.2.7, {forwarded}") in {"10.0.0.1", "192.0.2.7"}


NODES = [
    ("198.51.100.1", "198.51.100.1"),
    ("198.51.100.1:47011", "198.51.100.1"),
    ("198.51.100.1:_obfuscated", "198.51.100.1"),
    ("2001:4860::8", "2001:4860::8"),
    ("2001:4860:0:0::0:8", "2001:4860::8"),
    ("[2001:4860::8]", "2001:4860::8"),
    ("[2001:4860::8]:47011", "2001:4860::8"),
    ("[2001:4860::8]:_x", "2001:4860::8"),
    ("::ffff:198.51.100.1", "198.51.100.1"),
    ("[::ffff:c633:6401]:80", "198.51.100.1"),
    ("fe80::1%eth0", "fe80::1"),
    ("[fe80::1%25eth0]:80", "fe80::1"),
    ("unknown", None),
    ("unknown:8080", None),
    ("_hidden", None),
    ("_SEVKISEK:_x", None),
    ("client.example.com", None),
    ("198.51.100.1:123456", None),
    ("198.51.100.256", None),
    ("[198.51.100.1", None),
    ("[]", None),
    ("[2001:4860::8]47011", None),
    ("127.1", None),
    ("0x7f.1", None),
]
"""Nodes of RFC 7239 section 6, with the client's IP address, or None if the proxy does not disclose it."""


@pytest.mark.parametrize(("node", "address"), NODES)
def test_node_may_have_a_port_and_brackets(node: str, address: str | None) -> None:
    for header in (
        ("x-forwarded-for", node),
        ("x-forwarded-for", f'192.0.2.7, "{node}" ,'),
        ("forwarded", f"for={node}"),
        ("forwarded", f'for="{node}"'),
        ("forwarded", f'for=192.0.2.7;by=_x, proto=https; FOR="{node}";by="[2001:db8::1]:8080" ;host="a,b\\",c"'),
    ):
        assert ip_of_headers("10.0.0.1", header) == (address or "10.0.0.1"), header


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
        (["for=192.0.2.43, for=198.51.100.17;by=10.0.0.9, for=10.0.0.9"], "198.51.100.17"),
        (["for=192.0.2.43", "for=198.51.100.17"], "198.51.100.17"),
        (['For="[2001:4860:cafe::17]:4711"'], "2001:4860:cafe::17"),
        (["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
        (['for=192.0.2.43,for="[2001:4860:cafe::17]",for=unknown'], "10.0.0.1"),
        (["proto=https;by=203.0.113.43"], "10.0.0.1"),
        (["for=192.0.2.43;for=198.51.100.17"], "10.0.0.1"),
        (['for="198.51.100\\.17"'], "198.51.100.17"),
        (["for = 198.51.100.17"], "10.0.0.1"),
        (["198.51.100.17"], "10.0.0.1"),
        (["for=198.51.100.17,, ,"], "198.51.100.17"),
        ([";;for=198.51.100.17;"], "198.51.100.17"),
    ],
)
def test_client_ip_follows_forwarded(values: list[str], address: str) -> None:
    """The examples of RFC 7239 section 4, and others."""
    assert ip_of_headers("10.0.0.1", *(("forwarded", value) for value in values)) == address


@pytest.mark.parametrize(
    "forged",
    ['"', 'for="', 'for="x', 'for=203.0.113.9;x="', 'for=203.0.113.9;x="\\', "for=203.0.113.9,", ";", "=", "," * 9_000],
)
@pytest.mark.parametrize(
    "appended", ["for=198.51.100.17", 'for="198.51.100.17:80";proto=https', 'proto=https;for="198.51.100.17";host="a"']
)
def test_forged_forwarded_does_not_change_what_the_proxy_appends(forged: str, appended: str) -> None:
    assert ip_of_headers("10.0.0.1", ("forwarded", f"{forged}, {appended}")) == "198.51.100.17"
    assert ip_of_headers("10.0.0.1", ("forwarded", forged), ("forwarded", appended)) == "198.51.100.17"


def test_forwarded_is_ignored_beside_x_forwarded_for() -> None:
    forged = ("forwarded", "for=203.0.113.9")
    for headers in ((forged, ("x-forwarded-for", "198.51.100.17")), (("x-forwarded-for", "198.51.100.17"), forged)):
        assert ip_of_headers("10.0.0.1", *headers) == "198.51.100.17"
    assert ip_of_headers("192.0.2.1", forged) == "192.0.2.1"


def test_ipv4_client_of_a_dual_stack_port_has_an_ipv4_address() -> None:
    assert ip("::ffff:192.0.2.1", trusted=()) == "192.0.2.1"
    assert ip("fe80::1%eth0", trusted=()) == "fe80::1"
    assert ip("testclient", trusted=()) == "testclient"


@given(st.text(alphabet='for=,;" \\.:[]_%1a', max_size=200) | st.text(max_size=100))
def test_client_ip_is_an_address_whatever_the_headers(value: str) -> None:
    encoded = value.encode("latin-1", "replace").decode("latin-1")
    for name in ("forwarded", "x-forwarded-for"):
        ip_address(ip_of_headers("10.0.0.1", (name, encoded)) or "")


def test_long_forwarded_headers_are_parsed_in_linear_time() -> None:
    began = time.process_time()
    for text in (
        "," * 16_000,
        'for="' + "a," * 8_000,
        "for=1;" * 2_600,
        "a=" + "\\" * 16_000,
        '="' * 8_000,
        " ;" * 8_000,
    ):
        for header in ("forwarded", "x-forwarded-for"):
            ip_of_headers("10.0.0.1", (header, text))
    assert time.process_time() - began < 0.5


def test_client_ip_is_the_leftmost_if_all_are_trusted_proxies() -> None:
    assert ip("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


def test_client_ip_is_none_if_the_server_does_not_know_the_peer() -> None:
    assert client_ip({"client": None, "headers": []}, ()) is None


async def test_validation_errors_name_paths_and_never_values(stack: GatewayStack) -> None:
    body = {**LINK, "state": 7654321, "surprise": "hunter2", "device": {"platform": "amiga-9000", "extra": "hunter2"}}
    del body["client_id"]
    response = await stack.http.post("/1/2021-10-06/send_magic_link", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    errors = response.json()["meta"]["errors"]
    assert {error["path"] for error in errors} == {"client_id", "state", "surprise", "device.platform", "device.extra"}
    assert all(error.keys() == {"path", "message"} for error in errors)
    assert not any(value in response.text for value in ("7654321", "hunter2", "amiga"))
    assert stack.services.received == []


TRIAL_DEVICE = {"platform": "mac", "beak_id": "b-1", "fingerprint": "f-1"}


@pytest.mark.parametrize("platform", ["mac", "windows", "linux", "ios", "android", "web", "tvos", "wasm32", "a" * 32])
def test_lower_case_word_is_a_platform(platform: str) -> None:
    message = validated(SendMagicLink, {**LINK, "device": {"platform": platform}})
    assert message.device is not None
    assert message.device.platform == platform


@pytest.mark.parametrize("name", ["platform", "beak_id", "device_id", "fingerprint"])
@pytest.mark.parametrize("value", ["", " ", "\t\n", "\u3000", 1, True, [], {}, {"$gt": ""}])
def test_invalid_device_field_is_named(name: str, value: Any) -> None:
    for message, device in ((SendMagicLink, {}), (CreateTrialAndMagicLink, TRIAL_DEVICE)):
        others = {other: text for other, text in device.items() if {other, name} != {"beak_id", "device_id"}}
        with pytest.raises(ValidationFailed) as refused:
            validated(message, {**LINK, "device": {**others, name: value}})
        assert [error["path"] for error in refused.value.meta["errors"]] == [f"device.{name}"]


@pytest.mark.parametrize("platform", ["MAC", "Mac", "mac os", "amiga-9000", "9front", "a" * 33, "mac\n", "m\u0430c"])
def test_other_texts_are_no_platforms(platform: str) -> None:
    with pytest.raises(ValidationFailed):
        validated(SendMagicLink, {**LINK, "device": {"platform": platform}})


@pytest.mark.parametrize(
    ("ids", "beak_id"),
    [
        ({"beak_id": "b"}, "b"),
        ({"device_id": "d"}, "d"),
        ({"beak_id": "b", "device_id": "d"}, "b"),
        ({"beak_id": None, "device_id": "d"}, "d"),
    ],
)
@pytest.mark.parametrize("message", [SendMagicLink, CreateTrialAndMagicLink])
def test_device_id_is_another_name_of_beak_id(
    message: type[SendMagicLink | CreateTrialAndMagicLink], ids: dict[str, str | None], beak_id: str
) -> None:
    device = validated(message, {**LINK, "device": {"platform": "web", "fingerprint": "f", **ids}}).device
    assert device is not None
    assert device.beak_id == beak_id
    assert device.model_dump() == {"platform": "web", "beak_id": beak_id, "fingerprint": "f"}


@pytest.mark.parametrize("name", TRIAL_DEVICE)
def test_device_of_a_trial_is_complete(name: str) -> None:
    for device in ({**TRIAL_DEVICE, name: None}, {key: TRIAL_DEVICE[key] for key in TRIAL_DEVICE if key != name}):
        with pytest.raises(ValidationFailed) as refused:
            validated(CreateTrialAndMagicLink, {**LINK, "device": device})
        assert [error["path"] for error in refused.value.meta["errors"]] == [f"device.{name}"]


@pytest.mark.parametrize("message", [SendMagicLink, CreateTrialAndMagicLink])
def test_empty_state_is_refused(message: type[SendMagicLink | CreateTrialAndMagicLink]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        validated(message, {**LINK, "device": TRIAL_DEVICE, "state": ""})
    assert [error["path"] for error in refused.value.meta["errors"]] == ["state"]


USAGE = {"identifier": "one", "user_id": "user_ada", "event_name": "calls", "value": 1}


@pytest.mark.parametrize(
    ("entries", "errors"),
    [
        ([], [("usage", "must have at least 1 item")]),
        ([USAGE] * 101, [("usage", "must have at most 100 items")]),
        ([{**USAGE, "value": -1}], [("usage.0.value", "Input should be greater than or equal to 0")]),
        ([USAGE, 1], [("usage.1", "Input should be an object")]),
        (1, [("usage", "Input should be a valid array")]),
    ],
)
def test_error_about_an_array_is_in_terms_of_json(entries: Any, errors: list[tuple[str, str]]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        validated(ReportUsage, {"usage": entries})
    assert [(each["path"], each["message"]) for each in refused.value.meta["errors"]] == errors


async def test_validation_errors_are_bounded(stack: GatewayStack) -> None:
    body = {f"field_{number}" * 50: number for number in range(100)}
    response = await stack.http.post("/1/2021-10-06/list_news_items", json=body)
    assert response.status_code == 422
    assert len(response.json()["meta"]["errors"]) == 20
    assert len(response.content) < 8_000


@pytest.mark.parametrize("operator", [{"$gt": ""}, {"$ne": None}, {"$where": "1"}, ["a"], None, 1, True])
async def test_query_operator_in_place_of_a_string_is_refused(stack: GatewayStack, operator: Any) -> None:
    for name, body in {
        "get_user": {"user_id": operator},
        "list_news_items": {"client_id": operator},
        "authenticate_user": {"client_id": "c", "grant_type": operator},
        "send_magic_link": {**LINK, "identifier_value": operator},
    }.items():
        response = await stack.http.post(f"/1/2021-10-06/{name}", json=body, headers=stack.internal)
        assert response.status_code == 422, name
    assert stack.services.received == []


@pytest.mark.parametrize("name", [name for name in METHODS["2021-10-06"] if name.startswith(("get", "set", "send"))])
async def test_client_cannot_set_the_ordering_key(stack: GatewayStack, name: str) -> None:
    response = await stack.http.post(f"/1/2021-10-06/{name}", json={"key": "mine"}, headers=stack.internal)
    assert response.status_code == 422
    assert "key" in {error["path"] for error in response.json()["meta"]["errors"]}
