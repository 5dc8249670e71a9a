from collections.abc import Callable
from typing import Any

import pytest
from argon2.profiles import RFC_9106_LOW_MEMORY

from services.auth.settings import AuthSettings
from shared.settings import SettingsError

Make = Callable[..., AuthSettings]
PRODUCTION = {"environment": "production", "issuer": "https://nest.example"}


def test_passwords_are_hashed_as_rfc_9106_asks_by_default(settings: Make) -> None:
    assert settings(**PRODUCTION).password_parameters == RFC_9106_LOW_MEMORY


def test_memory_is_written_in_mib(settings: Make) -> None:
    parameters = settings(**PRODUCTION, password_memory=128, password_passes=4).password_parameters
    assert (parameters.memory_cost, parameters.time_cost) == (128 * 1024, 4)


@pytest.mark.parametrize(
    ("cheap", "said"),
    [
        ({"password_memory": 63}, "NEST_PASSWORD_MEMORY: must be 64 at least in production"),
        ({"password_passes": 2}, "NEST_PASSWORD_PASSES: must be 3 at least in production"),
        ({"old_clients": True}, "NEST_OLD_CLIENTS: puts passwords into URLs"),
    ],
)
def test_what_is_too_cheap_or_open_in_production_is_taken_elsewhere(
    settings: Make, cheap: dict[str, Any], said: str
) -> None:
    settings(**cheap)
    with pytest.raises(SettingsError, match=said):
        settings(**PRODUCTION, **cheap)


def test_old_clients_are_off_unless_asked_for_and_in_production_asked_for_twice(settings: Make) -> None:
    assert not settings().old_clients
    assert settings(**PRODUCTION, old_clients=True, old_clients_in_production=True).old_clients
    assert not settings(**PRODUCTION, old_clients_in_production=True).old_clients
