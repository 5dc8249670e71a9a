"""Profiles: which Nest a command calls, who may read the file, and what `nest login` stores."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from services.embedded.credentials import OperatorCredentials, write_operator_credentials
from services.operator.client import Client, CommandError, WrongKey
from services.operator.profiles import (
    Profile,
    checked_key,
    checked_name,
    checked_url,
    folder,
    read_profiles,
    save_profile,
)
from tests.operator.conftest import NestStub

URL = "https://api.example.com"


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the profiles, which does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("NEST_PROFILE", "NEST_URL", "NEST_INTERNAL_KEY", "NEST_INTERNAL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config" / "nest"


ENVIRONMENT = {"NEST_URL": "http://variable.test", "NEST_INTERNAL_KEY": "k"}


@pytest.mark.parametrize(
    ("flag", "variables", "stored", "called"),
    [
        ("flag", {**ENVIRONMENT, "NEST_PROFILE": "named"}, ("flag", "named", "default"), "http://flag.test"),
        (None, {**ENVIRONMENT, "NEST_PROFILE": "named"}, ("flag", "named", "default"), "http://variable.test"),
        (None, {"NEST_PROFILE": "named"}, ("flag", "named", "default"), "http://named.test"),
        (None, {}, ("flag", "named", "default"), "http://default.test"),
        (None, {}, ("flag", "named"), "http://folder.test"),
    ],
)
def test_flag_precedes_environment_profile_and_default(  # noqa: PLR0917 -- a fixture or a column each
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    flag: str | None,
    variables: dict[str, str],
    stored: tuple[str, ...],
    called: str,
) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://folder.test", "k"))
    for name in stored:
        save_profile(name, Profile(f"http://{name}.test", "k"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Client.of(tmp_path, flag).url == called


@pytest.mark.parametrize("words", [["--data", "FOLDER"], ["--data=FOLDER"]])
def test_data_folder_in_the_command_line_precedes_variables_and_profiles(
    nest: NestStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    write_operator_credentials(tmp_path, OperatorCredentials("http://folder.test", "k"))
    save_profile("default", Profile("http://default.test", "k"))
    called: list[str] = []

    def call(client: Client, method: str, body: dict[str, Any]) -> Any:
        called.append(client.url)
        return nest.call(method, body)

    monkeypatch.setattr(Client, "call", call)
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    assert nest.run("clients", "list", *words).exit_code == 0
    monkeypatch.setenv("NEST_DATA", str(tmp_path))
    assert nest.run("clients", "list").exit_code == 0
    assert called == ["http://folder.test", "http://nest.test"]
    assert nest.run("clients", "list", *words, "--profile", "default").exit_code == 2


@pytest.mark.parametrize(
    ("xdg", "expected"),
    [("/etc/xdg", "/etc/xdg/nest"), ("relative", "/home/ada/.config/nest"), ("", "/home/ada/.config/nest")],
)
def test_folder_is_that_of_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, xdg: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CONFIG_HOME", xdg)
    assert folder() == Path(expected)


def test_file_and_folder_are_their_owners_only(config: Path) -> None:
    save_profile("a", Profile(URL, "a-key"))
    assert (config.stat().st_mode & 0o777, (config / "profiles.json").stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize(
    ("path", "mode"), [("", 0o750), ("", 0o705), ("profiles.json", 0o640), ("profiles.json", 0o604)]
)
def test_profiles_that_others_can_access_are_refused(config: Path, path: str, mode: int) -> None:
    save_profile("a", Profile(URL, "a-key"))
    (config / path).chmod(mode)
    with pytest.raises(CommandError, match=r"others can access .*: chmod [67]00"):
        read_profiles()


@pytest.mark.parametrize(
    "content",
    ["", "[]", '"a"', '{"a": 1}', '{"a": {"url": "u"}}', '{"a b": {"url": "u", "key": "SECRET"}}', "[" * 9999],
)
def test_malformed_file_is_refused_without_its_content(config: Path, content: str) -> None:
    save_profile("a", Profile(URL, "a-key"))
    (config / "profiles.json").write_text(content)
    with pytest.raises(CommandError, match="is not a file of profiles") as refused:
        read_profiles()
    assert "SECRET" not in str(refused.value)


def test_logins_at_once_lose_no_profile() -> None:
    threads = [threading.Thread(target=save_profile, args=(f"p{number}", Profile(URL, "k"))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_profiles()) == 8


@pytest.mark.parametrize(
    "url", [URL, "https://h:8443/nest", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"]
)
def test_url_of_a_gateway_is_accepted(url: str) -> None:
    assert checked_url(f"{url}/") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://h",
        "https://",
        "http://api.example.com",
        "http://api.localhost",
        "http://localhost.evil.example",
        "https://u:p@h",
        "https://h?k=1",
        "https://h#f",
        "http://[",
        f"https://h/{'a' * 2000}",
    ],
)
def test_other_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        checked_url(url)


@pytest.mark.parametrize("key", ["", " \n", "a b", "a\nb", "ä", "a\x00", "a" * 4097])
def test_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        checked_key(key)


@pytest.mark.parametrize("name", ["", "a b", "../a", "-a", "a" * 65, "ä"])
def test_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at most 64"):
        checked_name(name)


def test_login_checks_the_key_and_stores_it(nest: NestStub, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("file-key\n")
    done = nest.run("login", "production", "--url", f"{URL}/", "--key-file", str(tmp_path / "key"))
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"stored profile production for {URL}\n", "")
    assert nest.calls == [("list_signing_keys", {})]
    assert nest.run("login", "--url", URL, "--key-file", "-", stdin="input-key\n").exit_code == 0
    assert read_profiles() == {"production": Profile(URL, "file-key"), "default": Profile(URL, "input-key")}


def test_login_asks_for_the_key_without_echo(nest: NestStub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def prompt(_text: str, **options: Any) -> str:
        asked.append(options)
        return "typed-key"

    monkeypatch.setattr("services.operator.login.typer.prompt", prompt)
    monkeypatch.setattr(
        "services.operator.login.sys", type("sys", (), {"stdin": type("in", (), {"isatty": lambda: True})})
    )
    done = nest.run("login", "--url", URL)
    assert (done.exit_code, asked) == (0, [{"hide_input": True, "err": True}])
    assert "typed-key" not in done.output
    assert read_profiles()["default"].key == "typed-key"


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (["a b", "--url", URL, "--key-file", "-"], "k", 2),
        (["a", "--url", "http://api.example.com", "--key-file", "-"], "k", 2),
        (["a", "--url", URL, "--key-file", "-"], "", 2),
        (["a", "--url", URL], "k", 2),
        (["a", "--url", URL, "--key", "k"], None, 2),
        (["a", "--url", URL, "--key-file", "/nowhere/key"], None, 1),
    ],
)
def test_refused_login_calls_and_stores_nothing(nest: NestStub, words: list[str], stdin: str | None, code: int) -> None:
    done = nest.run("login", *words, "--json", stdin=stdin)
    assert (done.exit_code, nest.calls, read_profiles()) == (code, [], {})
    assert json.loads(done.stderr)["code"] == ("usage" if code == 2 else "failed")


def test_wrong_key_is_not_stored(nest: NestStub) -> None:
    nest.responses["list_signing_keys"] = WrongKey(403, "access_denied", {"request_id": "r"}, message="rejects the key")
    done = nest.run("login", "--url", URL, "--key-file", "-", stdin="k")
    assert (done.exit_code, done.stderr, read_profiles()) == (1, "nest: rejects the key\n", {})


def test_profiles_are_listed_without_keys_and_removed(nest: NestStub) -> None:
    save_profile("a", Profile(URL, "a-key"))
    assert nest.run("profiles", "list").stdout == f"PROFILE\tURL\na\t{URL}\n"
    assert json.loads(nest.run("profiles", "list", "--json").stdout) == {"profiles": [{"name": "a", "url": URL}]}
    assert nest.run("clients", "list", "--profile", "a").exit_code == 0
    assert nest.run("profiles", "remove", "a").stdout == "removed profile a\n"
    for words in (["profiles", "remove", "a"], ["clients", "list", "--profile", "a"]):
        gone = nest.run(*words)
        assert (gone.exit_code, "no profile 'a'" in gone.stderr) == (1, True)
