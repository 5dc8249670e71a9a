from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from structlog.testing import capture_logs

from services.gateway import unsubscribe
from shared.mail import unsubscribe_token
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.sealing import Sealer
from tests.gateway.conftest import GatewayStack
from tests.gateway.fake_services import Refused

LANGUAGES = ("en", "de", "fr", "es", "it")
"""Languages of mails."""
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def path(stack: GatewayStack) -> str:
    return f"/unsubscribe/{unsubscribe_token(stack.services.sealer, 'user_1')}"


@pytest.fixture(autouse=True)
def mailer(stack: GatewayStack) -> None:
    stack.services.replies["mailer.record-marketing-consent"] = lambda _envelope: None


async def test_get_shows_a_button_and_changes_nothing(stack: GatewayStack, path: str) -> None:
    for verb in ("GET", "HEAD"):
        response = await stack.http.request(verb, path)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
    page = (await stack.http.get(path)).text
    assert '<form method="post">' in page
    assert '<button type="submit">Unsubscribe</button>' in page
    assert stack.services.received == []


async def test_page_loads_nothing_and_its_policy_allows_only_its_style(stack: GatewayStack, path: str) -> None:
    response = await stack.http.get(path)
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"<script|src=|href=|style=", response.text)


@pytest.mark.parametrize("headers", [{}, {"authorization": "bearer of.bad.news"}, {"idempotency-key": "x" * 300}])
async def test_post_sets_the_consent_to_none_without_a_login(
    stack: GatewayStack, path: str, headers: dict[str, str]
) -> None:
    response = await stack.http.post(path, data=ONE_CLICK, headers=headers)
    assert response.status_code == 200
    assert "You are unsubscribed" in response.text
    [envelope] = stack.services.received
    command = RecordMarketingConsent.model_validate_json(envelope.body)
    assert (command.user_id, command.level, command.source) == ("user_1", "none", "unsubscribe-link")
    assert (envelope.key, envelope.caller.kind) == ("user_1", "anonymous")


async def test_any_form_body_is_accepted(stack: GatewayStack, path: str) -> None:
    for body in (
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b""},
        {"content": b"List-Unsubscribe=One-Click"},
    ):
        response = await stack.http.post(path, **body)  # type: ignore[arg-type]
        assert response.status_code == 200
    assert len(stack.services.received) == 3


def forgeries(sealer: Sealer, path: str) -> list[str]:
    token = path.rpartition("/")[2]
    other_sealer = Sealer({"test": bytes(range(1, 33))})
    return [
        token[:-1],
        token[:-3] + ("AAA" if not token.endswith("AAA") else "BBB"),
        token.replace(".", "..", 1),
        "user_1",
        "x",
        "%00",
        "%F0%9F%92%A5",
        "k1." + "A" * 400,
        "k1." + "A" * 9000,
        unsubscribe_token(other_sealer, "user_1"),
        # Sealed with the same key for another receiver.
        sealer.seal("mailer", b"user_1"),
        sealer.seal("gateway", b"user_1"),
    ]


async def test_invalid_token_gives_404_and_no_message(stack: GatewayStack, path: str) -> None:
    for token in forgeries(stack.services.sealer, path):
        for verb in ("GET", "POST"):
            response = await stack.http.request(verb, f"/unsubscribe/{token}")
            assert response.status_code == 404, token
            assert "does not work" in response.text, token
    assert stack.services.received == []


async def test_other_http_methods_and_paths_are_refused(stack: GatewayStack, path: str) -> None:
    assert (await stack.http.put(path)).status_code == 405
    for other in ("/unsubscribe", "/unsubscribe/", f"{path}/more"):
        assert (await stack.http.post(other)).status_code == 404


@pytest.mark.parametrize(
    ("query", "header", "language"),
    [
        ("", None, "en"),
        ("?lang=de", None, "de"),
        ("?lang=de", "fr", "de"),
        ("?lang=fr-CA", None, "fr"),
        ("?lang=tlh", "es-MX, en;q=0.5", "es"),
        ("", "gsw-CH, de-CH;q=0.9, en;q=0.5", "de"),
        ("", "ja", "en"),
        ("?lang=", "it", "it"),
        ("?lang=../de&lang=x", "it", "it"),
        ("?lang=" + "de-" * 1000, None, "en"),
        ("?lang=%00%ff&other=1", None, "en"),
    ],
)
async def test_page_language_is_that_of_the_mail_else_of_the_browser(
    stack: GatewayStack, path: str, query: str, header: str | None, language: str
) -> None:
    texts = {
        "en": ("Unsubscribe from our news?", "You are unsubscribed"),
        "de": ("Keine Neuigkeiten mehr von uns?", "Sie sind abgemeldet"),
        "fr": ("Ne plus recevoir nos actualités", "Vous êtes désabonné"),
        "es": ("¿No quieres más novedades?", "Te has dado de baja"),
        "it": ("Non vuoi più le nostre novità?", "Iscrizione annullata"),
    }
    headers = {} if header is None else {"accept-language": header}
    for verb, text in zip(("GET", "POST"), texts[language], strict=True):
        response = await stack.http.request(verb, f"{path}{query}", headers=headers)
        assert (response.status_code, response.headers["content-language"]) == (200, language)
        assert f'<html lang="{language}">' in response.text
        assert text in response.text


def test_every_language_has_every_text() -> None:
    texts = tomllib.loads((Path(unsubscribe.__file__).parent / "templates" / "unsubscribe.toml").read_text())
    assert set(texts) == set(LANGUAGES)
    places = {state: set(parts) for state, parts in texts["en"].items() if state != "title"}
    assert set(places) == set(get_args(unsubscribe.State))
    for of_language in texts.values():
        assert {state: set(parts) for state, parts in of_language.items() if state != "title"} == places
    all_texts = [text for each in texts.values() for state in places for text in each[state].values()]
    assert len(set(all_texts)) == len(all_texts)


async def test_large_body_is_refused(stack: GatewayStack, path: str) -> None:
    assert (await stack.http.post(path, content=b"x" * 5000)).status_code == 413
    assert stack.services.received == []


async def test_refusal_shows_the_failure_page(stack: GatewayStack, path: str) -> None:
    stack.services.replies["mailer.record-marketing-consent"] = lambda _envelope: Refused("unavailable", "unavailable")
    response = await stack.http.post(path, data=ONE_CLICK)
    assert response.status_code == 503
    assert "That did not work" in response.text
    assert "retry-after" in response.headers


async def test_token_appears_in_no_log(stack: GatewayStack, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    dispatch = "services.gateway.endpoint.Dispatcher.dispatch"
    monkeypatch.setattr(dispatch, fail)
    with capture_logs() as logs:
        assert (await stack.http.post(path)).status_code == 500
    assert logs
    assert path.rpartition("/")[2] not in str(logs)
