from pathlib import Path

import pytest

from services.embedded import ports
from services.embedded.credentials import OperatorCredentials, write_operator_credentials
from services.operator.client import Client, CommandError, Refused, Unreachable

CLIENT = Client("http://nest.test", "a-key")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("NEST_PROFILE", "NEST_URL", "NEST_INTERNAL_KEY", "NEST_INTERNAL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_environment_takes_precedence_over_the_data_folder(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://127.0.0.1:8080", "folder-key"))
    environment.setenv("NEST_URL", "https://api.example.com/")
    environment.setenv("NEST_INTERNAL_KEY", "environment-key")
    assert Client.of(tmp_path) == Client("https://api.example.com", "environment-key")


def test_data_folder_provides_url_and_key(tmp_path: Path) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://127.0.0.1:8080", "folder-key"))
    assert Client.of(tmp_path) == Client("http://127.0.0.1:8080", "folder-key")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "Set NEST_URL and NEST_INTERNAL_KEY, store a profile with nest login, or start one with nest up"),
        ({"NEST_URL": "http://nest.test"}, "NEST_INTERNAL_KEY is not set"),
        ({"NEST_INTERNAL_KEY": "k"}, "NEST_URL is not set"),
    ],
)
def test_missing_url_or_key_is_an_error_with_a_remedy(
    environment: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(CommandError, match=message):
        Client.of(tmp_path)


def test_unreachable_nest_is_an_error_with_its_url() -> None:
    with pytest.raises(Unreachable, match=r"can.t reach Nest at http://127\.0\.0\.1:"):
        Client(f"http://127.0.0.1:{ports.any_free()}", "a-key").call("list_signing_keys", {})


def test_call_returns_the_result() -> None:
    assert CLIENT._result(200, b'{"keys": []}') == {"keys": []}
    assert CLIENT._result(204, b"") is None


def test_rejected_key_and_refusal_are_one_line_each() -> None:
    with pytest.raises(CommandError, match=r"http://nest\.test rejects the internal key"):
        CLIENT._result(403, b'{"code": "access_denied", "meta": {"request_id": "r"}}')
    with pytest.raises(Refused, match=r"^refused: a_code \(409; limit: 3\); request r$") as refused:
        CLIENT._result(409, b'{"code": "a_code", "meta": {"request_id": "r", "limit": 3}}')
    assert (refused.value.status, refused.value.code) == (409, "a_code")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b""])
def test_response_of_another_server_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not Nest|Expecting value"):
        CLIENT._result(404, body)
