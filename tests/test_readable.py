"""Search for secrets."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tests.metrics import exported_names
from tests.readable import contains


@pytest.mark.parametrize(
    "template",
    ["say {} there", "x{}", "xy{}", "xyz{}"],
)
def test_secret_is_found_in_every_encoding(template: str) -> None:
    secret = "hunter2/+hunter2?"
    text = template.format(secret)
    assert contains(text.encode(), secret)
    assert contains(base64.b64encode(text.encode()), secret)
    assert contains(base64.urlsafe_b64encode(text.encode()), secret)
    assert contains(text.encode().hex().encode(), secret)
    assert contains(quote(text, safe="").encode(), secret)
    assert contains(json.dumps({"a": text}).encode(), secret)
    assert not contains(b"hunter3/+hunter3?", secret)


@pytest.mark.parametrize("text", ['{"code": "123456"}', "#123456", "MTIzNDU2", "313233343536"])
def test_digits_are_found_as_a_word_and_in_every_encoding(text: str) -> None:
    assert contains(text, "123456")


def test_long_number_is_found_within_a_word() -> None:
    assert contains("p41791234567", "41791234567")


@pytest.mark.parametrize("text", ["1234567", "a123456", "0123456b"])
def test_digits_within_an_id_or_a_time_are_chance(text: str) -> None:
    assert not contains(text, "123456")


def test_names_and_labels_of_metrics_are_searched_without_their_values() -> None:
    registry = CollectorRegistry()
    Gauge("seconds", "Duration.", ["path"], registry=registry).labels("/register").set(0.123456)
    assert contains(generate_latest(registry), "123456")
    assert not contains(exported_names(registry), "123456")
    Gauge("calls", "Calls.", ["path"], registry=registry).labels("/register/123456").set(1)
    assert contains(exported_names(registry), "123456")
