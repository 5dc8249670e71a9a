"""Environment variables of settings: ``NEST_…``, files with secrets, and variables of one process only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, get_args

from pydantic import Secret, SecretBytes, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "NEST_"
PRODUCTION: Final = "production"
DEVELOPMENT: Final = "dev"
"""The environment of the embedded mode."""
FILE: Final = "_FILE"
MAX_FILE_BYTES: Final = 64 * 1024


class SettingsError(Exception):
    """Settings are missing or invalid; the text has one line per variable."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of a number in ``Annotated``, for the settings page: ``seconds``, ``calls per second``.

    A name that ends with its unit, such as ``drain_seconds``, needs none.
    """

    name: str


def is_secret(annotation: Any) -> bool:
    """Whether a type is, or contains, one of pydantic's types of secrets."""
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes | Secret):
        return True
    return any(map(is_secret, get_args(annotation)))


class VariableSettings(BaseSettings):
    """Base of all settings.

    A setting has the variable ``NEST_<SETTING>``, or the one that its ``validation_alias`` names, if a standard defines
    it. A setting whose type is a secret may instead be the content of the file that ``<VARIABLE>_FILE`` names: UTF-8,
    at most 64 KiB, without one line break at its end, read once at the start. The settings in ``OWN`` may have
    variables of one process, ``NEST_<PROCESS>_<SETTING>`` and ``…_FILE``, which take precedence, so that several
    processes can share one environment. An empty variable counts as unset if a file is named.

    Secrets, and URLs that may contain some, are ``SecretStr``: they appear in no representation. The docstring below a
    setting is its line in docs/settings.md; a number has a ``Unit``, or a name that ends with one.

    Raises:
        SettingsError: variables are missing or invalid. It is raised without the validation error, whose inputs and
            frames contain secrets.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )
    PROCESS: ClassVar[str] = ""
    """Name of the process, such as ``auth``; without one no setting has a variable of its own."""
    OWN: ClassVar[frozenset[str]] = frozenset(
        {
            *("mongo_url", "kafka_user", "kafka_password", "kafka_token_file"),
            *("kafka_certificate_file", "kafka_key_file", "kafka_key_password"),
        }
    )
    """Settings that may differ between processes that share an environment: addresses and credentials."""
    SECTIONS: ClassVar[Mapping[str, str]] = {}
    """Headings of docs/settings.md, each by the first of the settings below it."""

    def __init__(self, **values: Any) -> None:
        lines: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as invalid:
            lines = self._lines(invalid)
        if lines:
            values.clear()
            raise SettingsError("\n".join(lines))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the base's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then files and the process's own variables, then the other variables."""
        return init_settings, _FilesAndOwnVariables(settings_cls), env_settings

    @classmethod
    def _lines(cls, invalid: ValidationError) -> list[str]:
        lines = []
        for error in invalid.errors(include_url=False, include_input=False, include_context=False):
            name = cls._variable(str(error["loc"][0])) if error["loc"] else "settings"
            message = "is not set" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}")
        return list(dict.fromkeys(lines))

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the variable of a setting that all processes share."""
        alias = cls.model_fields[field].validation_alias
        return alias if isinstance(alias, str) else PREFIX + field.upper()

    @classmethod
    def secret(cls, field: str) -> bool:
        """Whether a setting is a secret, so that a file may hold it."""
        return is_secret(cls.model_fields[field].annotation)

    @classmethod
    def _variable(cls, located: str) -> str:
        """Return the variable that a setting comes from in this environment, or would come from by default."""
        field = next((name for name in cls.model_fields if cls.variable(name) == located), located)
        return next((name for name, _ in cls._present(field)), cls.variable(field))

    @classmethod
    def _present(cls, field: str) -> list[tuple[str, bool]]:
        """Return the variables of a setting that are not empty, the decisive one first, and whether each is a file."""
        own = [f"{PREFIX}{cls.PROCESS}_{field}".upper()] if cls.PROCESS and field in cls.OWN else []
        kinds = (False, True) if cls.secret(field) else (False,)
        names = [(name + FILE * file, file) for name in (*own, cls.variable(field)) for file in kinds]
        return [(name, file) for name, file in names if os.environ.get(name)]

    @field_validator("*", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, _Unusable):
            raise ValueError(value.reason)  # noqa: TRY004 -- pydantic's protocol
        return value


class _Unusable:
    """The value of a variable without a usable one; every setting refuses it with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _FilesAndOwnVariables(PydanticBaseSettingsSource):
    """Source of settings from files and from variables of the process's own."""

    settings_cls: type[VariableSettings]

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 -- the base's
        """Return a setting's value, or None if it has the usual variable or none."""
        present = self.settings_cls._present(field_name)  # noqa: SLF001 -- of this module
        value: Any = None
        if present and present[0] != (self.settings_cls.variable(field_name), False):
            name, file = present[0]
            value = _content(name) if file else os.environ[name]
        if twice := [name for name, _ in present if (name + FILE, True) in present]:
            name = "" if twice[0] == present[0][0] else f"{twice[0]} "
            value = _Unusable(f"{name}is set, and {twice[0]}{FILE} too: remove one of them")
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values by setting, or by its alias, which pydantic prefers."""
        fields = self.settings_cls.model_fields
        found = {
            str(each.validation_alias or name): self.get_field_value(each, name)[0] for name, each in fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}


def _content(variable: str) -> str | _Unusable:
    """Return the secret in the file that a variable names."""
    path = Path(os.environ[variable])
    # Another text may be the secret itself, in the wrong variable.
    name = str(path) if path.is_absolute() else "the file"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        return _Unusable(f"{name} can't be read: {failure.strerror}")
    except ValueError:
        return _Unusable(f"{name} is not the name of a file")
    if len(content) > MAX_FILE_BYTES:
        return _Unusable(f"{name} has more than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _Unusable(f"{name} is not UTF-8")
    return text.removesuffix("\r\n" if text.endswith("\r\n") else "\n") or _Unusable(f"{name} is empty")
