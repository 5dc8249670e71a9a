"""Secrets in files: every secret setting of every process, found by its type."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import services
import shared
from services.embedded.machine import _given
from services.operator.client import Client, CommandError
from services.operator.doctor.settings import LoadedSettings
from services.reference.settings import COMMANDS, EMBEDDED, SERVICES
from shared.settings import SettingsError, load
from shared.variables import MAX_FILE_BYTES, VariableSettings
from tests.test_secret_settings import MARKED_KEY, MARKER, OTHERS, SECRETS, failure_of, representations

ROOT: Final = Path(__file__).parents[1]


def declared() -> Iterator[type[VariableSettings]]:
    """Return every class of settings in the source."""
    for package in (services, shared):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    pending = [VariableSettings]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if re.match(r"(services|shared)\.", kind.__module__) and kind.model_fields:
            yield kind


KINDS: Final = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in declared()}
FIELDS: Final = [
    (kind, field)
    for field, kind in {
        field: kind for kind in KINDS.values() for field in kind.model_fields if kind.secret(field)
    }.items()
]
"""Each secret with one of the classes that have it: all read their files in ``VariableSettings``."""
IDS: Final = [f"{kind.__name__}.{field}" for kind, field in FIELDS]
VALUES: Final = {
    **SECRETS,
    "internal_key": f"{MARKER}-of-an-operator",
    "otel_exporter_otlp_traces_endpoint": f"https://nest:{MARKER}@traces.test/v1/traces",
}
"""A valid value of every secret. A password of a key file needs the file."""
WITHOUT_A_FILE: Final = "needs NEST_KAFKA_CERTIFICATE_FILE"

UNUSABLE: Final[dict[str, Callable[[Path], object]]] = {
    "can't be read": lambda path: path.unlink(missing_ok=True),
    "can't be read: Is a directory": lambda path: (path.unlink(missing_ok=True), path.mkdir()),
    "is empty": lambda path: path.write_text(""),
    "is empty (a line break)": lambda path: path.write_text("\n"),
    "is not UTF-8": lambda path: path.write_bytes(f"{MARKER}\xff".encode("latin-1")),
    f"has more than {MAX_FILE_BYTES} bytes": lambda path: path.write_text(MARKER * MAX_FILE_BYTES),
}
"""How a file is made unusable, by the reason in the error."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {**OTHERS, **{f"NEST_{name.upper()}": value for name, value in SECRETS.items()}}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_all_processes_are_among_the_declared_settings() -> None:
    assert {*SERVICES.values(), *COMMANDS, EMBEDDED} <= set(KINDS.values())
    assert {field for _, field in FIELDS} == {*VALUES, "kafka_key_password"}


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=IDS)
def test_a_file_may_hold_any_secret(
    environment: pytest.MonkeyPatch, kind: type[VariableSettings], field: str, tmp_path: Path
) -> None:
    variable, file = kind.variable(field), tmp_path / "secret"
    if field == "kafka_key_password":
        file.write_text(MARKER)
        environment.setenv(f"{variable}_FILE", str(file))
        with pytest.raises(SettingsError, match=f"^{variable}_FILE: {WITHOUT_A_FILE}"):
            load(kind)
        return
    if field == "otel_exporter_otlp_traces_endpoint":
        # The earlier name of the same setting; both together are refused.
        environment.delenv("NEST_OTLP_ENDPOINT", raising=False)
    environment.setenv(variable, VALUES[field])
    expected = getattr(load(kind), field)
    environment.delenv(variable)
    environment.setenv(f"{variable}_FILE", str(file))
    for content in (VALUES[field], f"{VALUES[field]}\n", f"{VALUES[field]}\r\n"):
        file.write_bytes(content.encode())
        assert getattr(load(kind), field) == expected
    # An empty variable counts as unset, as compose sets one.
    environment.setenv(variable, "")
    assert getattr(load(kind), field) == expected


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=IDS)
def test_an_unusable_file_is_refused_by_the_name_of_its_variable(
    environment: pytest.MonkeyPatch, kind: type[VariableSettings], field: str, tmp_path: Path
) -> None:
    variable = kind.variable(field)
    environment.delenv(variable, raising=False)
    for number, (reason, make) in enumerate(UNUSABLE.items()):
        file = tmp_path / str(number)
        make(file)
        environment.setenv(f"{variable}_FILE", str(file))
        failure = failure_of(lambda: load(kind))
        assert isinstance(failure, SettingsError)
        assert f"{variable}_FILE: {file} {reason.partition(' (')[0]}" in str(failure)
        assert not [text for text in representations(failure) if MARKER in text or MARKED_KEY in text]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=IDS)
def test_a_variable_and_its_file_together_are_refused_by_both_names(
    environment: pytest.MonkeyPatch, kind: type[VariableSettings], field: str, tmp_path: Path
) -> None:
    shared_variable, file = kind.variable(field), tmp_path / "secret"
    file.write_text(MARKER)
    own = f"NEST_{kind.PROCESS}_{field}".upper() if kind.PROCESS and field in kind.OWN else None
    for variable in filter(None, (shared_variable, own)):
        environment.setenv(variable, MARKER)
        environment.setenv(f"{variable}_FILE", str(file))
        failure = failure_of(lambda: load(kind))
        assert isinstance(failure, SettingsError)
        assert re.search(rf"^{variable}: is set, and {variable}_FILE too", str(failure), re.MULTILINE)
        assert not [text for text in representations(failure) if MARKER in text or MARKED_KEY in text]


def test_a_secret_in_the_variable_of_its_file_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("NEST_SEALING_KEYS")
    environment.setenv("NEST_SEALING_KEYS_FILE", f"k1:{MARKER}")
    failure = failure_of(lambda: load(SERVICES["news"]))
    assert str(failure) == "NEST_SEALING_KEYS_FILE: the file can't be read: No such file or directory"
    assert not [text for text in representations(failure) if MARKER in text]


def test_no_secret_is_read_past_the_settings() -> None:
    """A read of the environment by name would ignore the file."""
    secrets = {kind.variable(field) for kind, field in FIELDS}
    sources = {path: path.read_text() for folder in ("services", "shared") for path in (ROOT / folder).rglob("*.py")}
    reads = re.compile(r"environ(?:\.get\(|\[)\s*\"(\w+)\"|envvar=\"(\w+)\"")
    found = {name for text in sources.values() for names in reads.findall(text) for name in names}
    assert not found & secrets


def test_operator_commands_read_the_key_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-key\n")
    environment.setenv("NEST_URL", "https://api.example.com")
    environment.setenv("NEST_INTERNAL_KEY_FILE", str(tmp_path / "key"))
    assert Client.of(tmp_path) == Client("https://api.example.com", "a-key")
    environment.setenv("NEST_INTERNAL_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(CommandError, match=r"^NEST_INTERNAL_KEY_FILE: .* can't be read"):
        Client.of(tmp_path)


def test_the_embedded_mode_passes_files_on_to_the_services(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.chdir(tmp_path)
    environment.delenv("NEST_SEALING_KEYS")
    assert _given("NEST_SEALING_KEYS") == {}
    environment.setenv("NEST_SEALING_KEYS_FILE", "keys")
    assert _given("NEST_SEALING_KEYS") == {"NEST_SEALING_KEYS_FILE": str(tmp_path / "keys")}
    environment.setenv("NEST_SEALING_KEYS", "k1:both")
    assert set(_given("NEST_SEALING_KEYS")) == {"NEST_SEALING_KEYS", "NEST_SEALING_KEYS_FILE"}


def test_the_doctor_reads_sealing_keys_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Even if no service would start."""
    environment.setenv("NEST_LOG_LEVEL", "loud")
    (tmp_path / "keys").write_text(SECRETS["sealing_keys"])
    environment.delenv("NEST_SEALING_KEYS")
    environment.setenv("NEST_SEALING_KEYS_FILE", str(tmp_path / "keys"))
    loaded = LoadedSettings()
    assert not loaded.settings
    assert loaded.sealing_keys() is not None
