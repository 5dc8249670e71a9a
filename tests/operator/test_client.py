from pathlib import Path

import pytest

from services.embedded import ports
from services.embedded.credentials import OperatorCredentials, write_operator_credentials
from services.operator.client import Client
from services.operator.errors import NowhereToGo, OutOfReach, RefusedVerb, WrongKey

CLIENT = Client("http://nest.test", "a-key")


def test_the_environment_says_which_nest(tmp_path: Path) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://127.0.0.1:8080", "of-the-folder"))
    environment = {"NEST_URL": "https://api.example.com/", "NEST_INTERNAL_KEY": "of-the-environment"}
    assert Client.of(tmp_path, environment) == Client("https://api.example.com", "of-the-environment")


def test_else_the_data_folder_does(tmp_path: Path) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://127.0.0.1:8080", "of-the-folder"))
    assert Client.of(tmp_path, {}) == Client("http://127.0.0.1:8080", "of-the-folder")


def test_the_note_in_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://127.0.0.1:8080", "of-the-folder"))
    assert (tmp_path / "operator.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "Set NEST_URL and NEST_INTERNAL_KEY, or start one with nest up"),
        ({"NEST_URL": "http://nest.test"}, "NEST_INTERNAL_KEY is not set"),
        ({"NEST_INTERNAL_KEY": "k"}, "NEST_URL is not set"),
    ],
)
def test_who_names_no_nest_is_told_how(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    with pytest.raises(NowhereToGo, match=told):
        Client.of(tmp_path, environment)


def test_a_nest_that_does_not_answer_is_named() -> None:
    with pytest.raises(OutOfReach, match=r"can.t reach Nest at http://127\.0\.0\.1:"):
        Client(f"http://127.0.0.1:{ports.any_free()}", "a-key").call("list_signing_keys", {})


def test_an_answer_is_what_the_method_says() -> None:
    assert CLIENT._result(200, b'{"keys": []}') == {"keys": []}
    assert CLIENT._result(204, b"") is None


def test_a_wrong_key_and_a_refusal_read_well() -> None:
    with pytest.raises(WrongKey, match=r"http://nest\.test does not take this internal key"):
        CLIENT._result(403, b'{"code": "access_denied", "meta": {"request_id": "r"}}')
    with pytest.raises(RefusedVerb, match=r"^refused: a_code \(409; limit: 3\); request r$") as refused:
        CLIENT._result(409, b'{"code": "a_code", "meta": {"request_id": "r", "limit": 3}}')
    assert (refused.value.status, refused.value.code) == (409, "a_code")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b""])
def test_what_is_not_nest_is_noticed(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not Nest|Expecting value"):
        CLIENT._result(404, body)
