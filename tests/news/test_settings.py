from collections.abc import Callable

import pytest

from services.news.settings import NewsSettings
from shared.settings import SettingsError


def test_button_may_open_web_pages_by_default(settings: Callable[..., NewsSettings]) -> None:
    assert settings().news_action_schemes == ("https", "http")


def test_schemes_are_separated_by_commas(
    settings: Callable[..., NewsSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEST_NEWS_ACTION_SCHEMES", "https, beak")
    assert settings().news_action_schemes == ("https", "beak")


@pytest.mark.parametrize("schemes", ["javascript", "https,data", "HTTPS", "beak://", ""])
def test_dangerous_or_invalid_scheme_prevents_the_start(settings: Callable[..., NewsSettings], schemes: str) -> None:
    with pytest.raises(SettingsError, match="NEST_NEWS_ACTION_SCHEMES"):
        settings(news_action_schemes=schemes)


def test_button_may_open_any_host_unless_hosts_are_set(
    settings: Callable[..., NewsSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings().news_action_hosts == ()
    monkeypatch.setenv("NEST_NEWS_ACTION_HOSTS", "nest.example, xn--bcher-kva.example")
    assert settings().news_action_hosts == ("nest.example", "xn--bcher-kva.example")


@pytest.mark.parametrize("hosts", ["https://nest.example", "Nest.example", "nest.example/", "-nest.example", "*.nest"])
def test_invalid_host_prevents_the_start(settings: Callable[..., NewsSettings], hosts: str) -> None:
    with pytest.raises(SettingsError, match="NEST_NEWS_ACTION_HOSTS"):
        settings(news_action_hosts=hosts)
