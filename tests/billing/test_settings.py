from collections.abc import Callable
from typing import Any

import pytest

from services.billing.settings import BillingSettings
from shared.settings import SettingsError, load
from tests.production import KAFKA

Make = Callable[..., BillingSettings]
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "stripe_livemode": True,
    "stripe_api_key": "sk_live_1",
    **KAFKA,
}


@pytest.mark.parametrize(
    "name", ["STRIPE_LIVEMODE", "STRIPE_API_KEY", "STRIPE_TRIAL_PRICE", "STRIPE_PORTAL_RETURN_URL"]
)
def test_a_missing_variable_is_named(name: str, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for field, value in settings().model_dump(exclude_none=True, exclude_defaults=True).items():
        plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if field != name.lower():
            monkeypatch.setenv(BillingSettings.variable(field), str(plain))
    with pytest.raises(SettingsError, match=f"^NEST_{name}: is not set$"):
        load(BillingSettings)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("STRIPE_API_KEY", {"stripe_livemode": True}),
        ("STRIPE_API_KEY", {"stripe_api_key": "sk_live_1"}),
        ("STRIPE_API_KEY", {"stripe_api_key": "rk_live_1"}),
        ("STRIPE_API_KEY", {"stripe_api_key": ""}),
        ("STRIPE_API_KEY", {"stripe_api_key": "pk_test_1"}),
        ("STRIPE_API_BASE", {**PRODUCTION, "stripe_api_base": "http://127.0.0.1:1"}),
        ("STRIPE_API_BASE", {"stripe_api_base": "127.0.0.1:1"}),
        ("STRIPE_REQUIRED_COUPON", {**PRODUCTION, "stripe_required_coupon": "staff"}),
        ("STRIPE_PORTAL_RETURN_URL", {"stripe_portal_return_url": "javascript:alert(1)"}),
        ("STRIPE_PORTAL_RETURN_URL", {**PRODUCTION, "stripe_portal_return_url": "http://getbeak.app/"}),
        ("STRIPE_TRIAL_PRICE", {"stripe_trial_price": ""}),
    ],
)
def test_an_invalid_or_dangerous_variable_is_named(name: str, changed: dict[str, Any], settings: Make) -> None:
    with pytest.raises(SettingsError, match=f"NEST_{name}: ") as refused:
        settings(**changed)
    assert "_live_1" not in str(refused.value)


def test_a_key_of_the_right_mode_is_accepted(settings: Make) -> None:
    assert settings(stripe_api_key="rk_test_1").stripe_livemode is False
    assert settings(**PRODUCTION).stripe_livemode is True


def test_products_are_separated_by_commas(settings: Make) -> None:
    assert settings(stripe_products=" prod_1,prod_2 ,").stripe_products == ("prod_1", "prod_2")
    assert settings().stripe_products == settings(stripe_products="").stripe_products == ()


def test_a_slash_at_the_end_of_the_api_base_is_removed(settings: Make) -> None:
    assert settings(stripe_api_base="http://127.0.0.1:1/").stripe_api_base == "http://127.0.0.1:1"
