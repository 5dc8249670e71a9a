from collections.abc import Callable

import pytest

from services.news.settings import NewsSettings
from shared.settings import SettingsError


def test_buttons_may_lead_to_the_web_by_default(settings: Callable[..., NewsSettings]) -> None:
    assert settings().news_action_schemes == ("https", "http")


def test_schemes_are_read_from_a_list_with_commas(
    settings: Callable[..., NewsSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEST_NEWS_ACTION_SCHEMES", "https, beak")
    assert settings().news_action_schemes == ("https", "beak")


@pytest.mark.parametrize("schemes", ["javascript", "https,data", "HTTPS", "beak://", ""])
def test_a_dangerous_or_impossible_scheme_stops_the_start(settings: Callable[..., NewsSettings], schemes: str) -> None:
    with pytest.raises(SettingsError, match="NEST_NEWS_ACTION_SCHEMES"):
        settings(news_action_schemes=schemes)


def test_a_button_may_lead_to_any_host_unless_some_are_named(
    settings: Callable[..., NewsSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings().news_action_hosts == ()
    monkeypatch.setenv("NEST_NEWS_ACTION_HOSTS", "nest.example, xn--bcher-kva.example")
    assert settings().news_action_hosts == ("nest.example", "xn--bcher-kva.example")


@pytest.mark.parametrize("hosts", ["https://nest.example", "Nest.example", "nest.example/", "-nest.example", "*.nest"])
def test_what_is_no_host_stops_the_start(settings: Callable[..., NewsSettings], hosts: str) -> None:
    with pytest.raises(SettingsError, match="NEST_NEWS_ACTION_HOSTS"):
        settings(news_action_hosts=hosts)
