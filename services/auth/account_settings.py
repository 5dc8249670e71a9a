"""What must auth be told about passwords, and about old clients?"""

from __future__ import annotations

from typing import Final

from argon2 import Parameters
from argon2.profiles import RFC_9106_LOW_MEMORY
from pydantic import Field, ValidationInfo, field_validator

from shared.settings import PRODUCTION, OldClientsSettings

_KIB: Final = 1024


class AccountSettings(OldClientsSettings):
    """The environment variables of auth that are about owners, applications and their users."""

    password_memory: int = Field(default=RFC_9106_LOW_MEMORY.memory_cost // _KIB, ge=1, le=4096)
    """MiB that a password's hash takes; RFC 9106 section 4 asks for 64 where memory is short, and so does production.
    When it has changed, a password is hashed again at the next login."""
    password_passes: int = Field(default=RFC_9106_LOW_MEMORY.time_cost, ge=1, le=64)
    """How often a hash goes over its memory; likewise."""
    password_threads: int = Field(default=2, ge=1, le=64)
    """How many passwords a process hashes at once, each with the memory above and on up to four cores."""
    password_wait_seconds: float = Field(default=5.0, gt=0, le=60)
    """Whoever would have to wait longer for a password to be hashed is told to come back; less than
    ``NEST_REPLY_SECONDS``, after which nobody waits any more."""

    @field_validator("password_memory", "password_passes")
    @classmethod
    def _costly_enough(cls, value: int, info: ValidationInfo) -> int:
        least = cls.model_fields[str(info.field_name)].default
        if value < least and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError(f"must be {least} at least in production")
        return value

    @property
    def password_parameters(self) -> Parameters:
        """The parameters of Argon2id."""
        usual = RFC_9106_LOW_MEMORY
        return Parameters(
            type=usual.type,
            version=usual.version,
            salt_len=usual.salt_len,
            hash_len=usual.hash_len,
            time_cost=self.password_passes,
            memory_cost=self.password_memory * _KIB,
            parallelism=usual.parallelism,
        )
