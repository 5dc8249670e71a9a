from pathlib import Path

from services.embedded.credentials import generated_secrets
from shared.settings import parse_keys


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    first = generated_secrets(tmp_path)
    assert generated_secrets(tmp_path) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_two_folders_share_no_secret(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = generated_secrets(tmp_path / "a"), generated_secrets(tmp_path / "b")
    assert not set(vars(one).values()) & set(vars(other).values())


def test_the_sealing_key_is_one_that_services_take(tmp_path: Path) -> None:
    assert list(parse_keys(generated_secrets(tmp_path).sealing_key)) == ["k1"]
