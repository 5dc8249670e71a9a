"""How much is auth told to allow? Each limit is a variable of its own: ``1/1m, 5/1h, 10/1d``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.auth.rate_limits.models import MAX_LOGGED_USES, Limit, LimitName, PersonLimitName
from shared.settings import PRODUCTION, ServiceSettings


def _parsed(value: object) -> object:
    return Limit.parse(value) if isinstance(value, str) else value


Rules = Annotated[Limit, NoDecode, BeforeValidator(_parsed)]
"""Rules that hold at once, with commas between them: how many, a slash, and within what; or ``none``."""


class LimitSettings(ServiceSettings):
    """The environment variables about limits."""

    limit_magic_links_per_address: Rules = Limit.parse("1/1m, 5/1h, 10/1d")
    """Magic links to one address."""
    limit_magic_links_per_prefix: Rules = Limit.parse("30/5m")
    """Magic links ordered from one IP prefix (/24 of IPv4, /64 of IPv6)."""
    limit_magic_links_per_client: Rules = Limit.parse("1000/1m, 20000/1h")
    """Magic links ordered through one app."""
    limit_trials_per_address: Rules = Limit.parse("5/10m, 10/1d")
    """Orders of a trial for one address. Apart from magic links: an order that Stripe was away for is to be repeated at
    once, and a trial mails its link once."""
    limit_guesses_per_identifier: Rules = Limit.parse("10/1h")
    """Wrong guesses at the codes of one address or number, whatever the number of codes."""
    limit_wrong_keys_per_prefix: Rules = Limit.parse("60/5m")
    """Codes and refresh tokens that don't exist, from one IP prefix; right ones are taken all the same."""
    limit_texts_per_number: Rules = Limit.parse("3/10m, 10/1d")
    """Texts to one number."""
    limit_texts_per_prefix: Rules = Limit.parse("20/1h")
    """Texts ordered from one IP prefix."""
    limit_passwords_per_user: Rules = Limit.parse("10/15m")
    """Wrong passwords for one user."""
    guesses_per_code: int = Field(default=5, ge=1, le=10)
    """So many wrong guesses void a code."""
    limit_lift_loopback: bool = False
    """Whether limits per IP prefix don't hold for this machine itself; refused in production."""

    @field_validator(*(f"limit_{name.replace('-', '_')}" for name in get_args(PersonLimitName)))
    @classmethod
    def _guards_a_person(cls, value: Limit, info: ValidationInfo) -> Limit:
        if value.most > MAX_LOGGED_USES:
            raise ValueError(f"at most {MAX_LOGGED_USES} uses of one person are remembered")
        if not value.rules and info.data.get("environment") == PRODUCTION:
            raise ValueError("can't be none in production")
        return value

    @field_validator("limit_lift_loopback")
    @classmethod
    def _for_trying_only(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
        if value and info.data.get("environment") == PRODUCTION:
            # Behind a proxy that is not declared everybody comes from this machine.
            raise ValueError("must be false in production")
        return value

    @property
    def limits(self) -> Mapping[LimitName, Limit]:
        """All limits by their names."""
        return {
            "magic-links-per-address": self.limit_magic_links_per_address,
            "magic-links-per-prefix": self.limit_magic_links_per_prefix,
            "magic-links-per-client": self.limit_magic_links_per_client,
            "trials-per-address": self.limit_trials_per_address,
            "guesses-per-identifier": self.limit_guesses_per_identifier,
            "wrong-keys-per-prefix": self.limit_wrong_keys_per_prefix,
            "texts-per-number": self.limit_texts_per_number,
            "texts-per-prefix": self.limit_texts_per_prefix,
            "passwords-per-user": self.limit_passwords_per_user,
        }
