"""Environment variables of settings: ``NEST_…``, files with secrets, and variables of one process only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "NEST_"
PRODUCTION: Final = "production"
FILE: Final = "_FILE"
MAX_FILE_BYTES: Final = 64 * 1024


class SettingsError(Exception):
    """Settings are missing or invalid; the text has one line per variable."""


class VariableSettings(BaseSettings):
    """Base of all settings.

    A setting has the variable ``NEST_<SETTING>``. A secret may instead be the content of the file that
    ``NEST_<SETTING>_FILE`` names, without a line break at its end. The settings in ``OWN`` may have variables of one
    process, ``NEST_<PROCESS>_<SETTING>`` and ``…_FILE``, which take precedence, so that several processes can share one
    environment.

    Secrets, and URLs that may contain some, are ``SecretStr``: they appear in no representation.

    Raises:
        SettingsError: variables are missing or invalid. It is raised without the validation error, whose inputs and
            frames contain secrets.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)
    PROCESS: ClassVar[str] = ""
    """Name of the process, such as ``auth``; without one no setting has a variable of its own."""
    OWN: ClassVar[frozenset[str]] = frozenset(
        {
            *("mongo_url", "kafka_user", "kafka_password", "kafka_token_file"),
            *("kafka_certificate_file", "kafka_key_file", "kafka_key_password"),
        }
    )
    """Settings that may differ between processes that share an environment: addresses and credentials."""

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
    def _variable(cls, field: str) -> str:
        """Return the variable that a setting comes from in this environment, or would come from by default."""
        return next((name for name, _ in cls._present(field)), PREFIX + field.upper())

    @classmethod
    def _present(cls, field: str) -> list[tuple[str, bool]]:
        """Return the variables of a setting that are not empty, the decisive one first, and whether each is a file."""
        own = [f"{PREFIX}{cls.PROCESS}_{field}".upper()] if cls.PROCESS and field in cls.OWN else []
        secret = "SecretStr" in str(cls.model_fields[field].annotation)
        kinds = (False, True) if secret else (False,)
        names = [(name + FILE * file, file) for name in (*own, PREFIX + field.upper()) for file in kinds]
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
        if present and present[0] != (PREFIX + field_name.upper(), False):
            name, file = present[0]
            value = _content(name) if file else os.environ[name]
        if len(present) > 1 and present[1] == (present[0][0] + FILE, True):
            value = _Unusable(f"is set, and {present[1][0]} too: remove one of them")
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values by setting."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _content(variable: str) -> str | _Unusable:
    """Return the secret in the file that a variable names."""
    path = Path(os.environ[variable])
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except OSError as failure:
        return _Unusable(f"{path} can't be read: {failure.strerror}")
    except ValueError:
        return _Unusable(f"{path} is not UTF-8")
    if len(content) > MAX_FILE_BYTES:
        return _Unusable(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return text.removesuffix("\n").removesuffix("\r") or _Unusable(f"{path} is empty")
