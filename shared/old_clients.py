"""Are clients served that were written for the accounts API before Nest? Said aloud, and in production said twice."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from shared.settings import PRODUCTION, BusSettings
from shared.telemetry import log


class OldClientsSettings(BusSettings):
    """What auth and the gateway must be told alike."""

    old_clients_in_production: bool = False
    """Says that ``old_clients`` is meant in production, too."""
    old_clients: bool = Field(default=False, validate_default=True)
    """Serve what old clients of the accounts API ask for: passwords in URLs, logging in with two ids alone, passwords
    of 6 characters, the deletion token for whoever knows an owner's id."""

    @field_validator("old_clients")
    @classmethod
    def _knowingly(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
        production = info.data.get("environment") == PRODUCTION
        if value and production and not info.data.get("old_clients_in_production"):
            raise ValueError("puts passwords into URLs; if it is meant, set NEST_OLD_CLIENTS_IN_PRODUCTION too")
        return value

    def warn_of_old_clients(self) -> None:
        """Say it in the log when they are served."""
        if self.old_clients:
            log.warning("old clients are served: passwords in URLs, short passwords, logging in with two ids alone")
