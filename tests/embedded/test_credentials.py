from pathlib import Path

from services.embedded.credentials import (
    OperatorCredentials,
    generated_secrets,
    operator_credentials,
    write_operator_credentials,
)
from shared.settings import parse_keys


def test_secrets_are_generated_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    first = generated_secrets(tmp_path)
    assert generated_secrets(tmp_path) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_folders_have_different_secrets(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = generated_secrets(tmp_path / "a"), generated_secrets(tmp_path / "b")
    assert not set(vars(one).values()) & set(vars(other).values())


def test_generated_sealing_key_is_valid(tmp_path: Path) -> None:
    assert list(parse_keys(generated_secrets(tmp_path).sealing_key)) == ["k1"]


def test_operator_credentials_are_stored_for_their_owner_only(tmp_path: Path) -> None:
    assert operator_credentials(tmp_path) is None
    credentials = OperatorCredentials("http://127.0.0.1:8080", "a-key", {"NEST_PORT": "8080"})
    write_operator_credentials(tmp_path, credentials)
    assert operator_credentials(tmp_path) == credentials
    assert (tmp_path / "operator.json").stat().st_mode & 0o777 == 0o600
