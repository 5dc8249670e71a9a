"""The file with the plans of an account, in TOML: products, their features and prices.

```toml
[features]                      # Stripe Entitlements; optional
reports = "Reports"             # lookup key = name

[[products]]
key = "pro"                     # stable name of the product: metadata nest_setup
name = "Beak Pro"
description = "For teams"
marketing_features = ["Everything in Beak", "Reports"]
features = ["reports"]
unit_label = "seat"
metadata = {nest_max_quantity = "50"}

[[products.prices]]
lookup_key = "pro_monthly"      # stable name of the price
interval = "month"              # day, week, month or year
interval_count = 1
currency = "usd"
amounts = {usd = 1000, eur = 900}   # in the minor unit, as Stripe counts it
tax_behavior = "exclusive"      # inclusive, exclusive or unspecified
trial_days = 14
```
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.operator.client import CommandError

MAX_BYTES: Final = 1_000_000
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+$")]
Currency = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
Amount = Annotated[int, Field(ge=0, le=99_999_999, strict=True)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedPrice(_Entry):
    """A recurring price."""

    lookup_key: Key
    interval: Literal["day", "week", "month", "year"]
    interval_count: Annotated[int, Field(ge=1, le=36)] = 1
    currency: Currency
    amounts: Annotated[dict[Currency, Amount], Field(min_length=1, max_length=150)]
    tax_behavior: Literal["inclusive", "exclusive", "unspecified"] = "unspecified"
    trial_days: Annotated[int, Field(ge=1, le=730)] | None = None
    nickname: str | None = None
    metadata: dict[str, str] = {}

    @model_validator(mode="after")
    def _has_default_amount(self) -> Self:
        if self.currency not in self.amounts:
            raise ValueError(f"{self.lookup_key}: amounts lacks the default currency {self.currency}")
        return self


class PlannedProduct(_Entry):
    """A product with its prices."""

    key: Key
    name: Annotated[str, Field(min_length=1, max_length=250)]
    description: str | None = None
    marketing_features: Annotated[tuple[Annotated[str, Field(max_length=80)], ...], Field(max_length=15)] = ()
    features: tuple[Key, ...] = ()
    unit_label: Annotated[str, Field(max_length=12)] | None = None
    metadata: dict[str, str] = {}
    prices: tuple[PlannedPrice, ...] = ()


class PlansFile(_Entry):
    """The file."""

    features: dict[Key, str] = {}
    products: Annotated[tuple[PlannedProduct, ...], Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        keys = [product.key for product in self.products]
        lookup_keys = [price.lookup_key for product in self.products for price in product.prices]
        for names, what in ((keys, "key"), (lookup_keys, "lookup_key")):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} {', '.join(twice)} appears twice")
        unknown = sorted({each for product in self.products for each in product.features} - self.features.keys())
        if unknown:
            raise ValueError(f"features lacks {', '.join(unknown)}")
        return self


def read_plans(path: Path) -> PlansFile:
    """Read the file.

    Raises:
        CommandError: it cannot be read, or a field of it is invalid.
    """
    try:
        text = path.read_bytes()
        if len(text) > MAX_BYTES:
            raise CommandError(f"{path} is larger than {MAX_BYTES} bytes")
        return PlansFile.model_validate(tomllib.loads(text.decode()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise CommandError(f"can't read {path}: {failure}") from None
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CommandError(f"{path}: {where}: {first['msg']}") from None
