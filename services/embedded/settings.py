"""Environment variables that the embedded mode needs itself; the services in it read theirs."""

from __future__ import annotations

from pydantic import SecretStr

from shared.variables import VariableSettings


class EmbeddedSettings(VariableSettings):
    """Secrets that replace the generated ones of the data folder."""

    sealing_keys: SecretStr | None = None
    """As for every service; by default one is generated."""
    internal_keys: SecretStr | None = None
    """As for the gateway; by default one is generated. `nest` uses the first."""
