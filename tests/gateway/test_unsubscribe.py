"""The link beside a mail: opening it changes nothing, posting to it ends the news."""

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
from tests.gateway.conftest import World
from tests.gateway.fake_services import Refused

LANGUAGES = ("en", "de", "fr", "es", "it")
"""Those that mails are written in."""
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def path(world: World) -> str:
    return f"/unsubscribe/{unsubscribe_token(world.services.sealer, 'user_1')}"


@pytest.fixture(autouse=True)
def mailer(world: World) -> None:
    world.services.replies["mailer.record-marketing-consent"] = lambda _envelope: None


async def test_opening_the_link_shows_a_button_and_changes_nothing(world: World, path: str) -> None:
    for verb in ("GET", "HEAD"):
        answer = await world.http.request(verb, path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
    page = (await world.http.get(path)).text
    assert '<form method="post">' in page
    assert '<button type="submit">Unsubscribe</button>' in page
    assert world.services.received == []


async def test_the_page_runs_and_loads_nothing_and_its_style_is_known_by_its_hash(world: World, path: str) -> None:
    answer = await world.http.get(path)
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"<script|src=|href=|style=", answer.text)


@pytest.mark.parametrize("headers", [{}, {"authorization": "bearer of.bad.news"}, {"idempotency-key": "x" * 300}])
async def test_posting_sets_the_consent_to_none_without_a_login(
    world: World, path: str, headers: dict[str, str]
) -> None:
    answer = await world.http.post(path, data=ONE_CLICK, headers=headers)
    assert answer.status_code == 200
    assert "You are unsubscribed" in answer.text
    [stored] = world.services.received
    told = RecordMarketingConsent.model_validate_json(stored.body)
    assert (told.user_id, told.level, told.source) == ("user_1", "none", "unsubscribe-link")
    assert (stored.key, stored.caller.kind) == ("user_1", "anonymous")


async def test_mail_programs_may_post_whatever_form_they_like(world: World, path: str) -> None:
    for sent in (
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b""},
        {"content": b"List-Unsubscribe=One-Click"},
    ):
        answer = await world.http.post(path, **sent)  # type: ignore[arg-type]
        assert answer.status_code == 200
    assert len(world.services.received) == 3


def forgeries(sealer: Sealer, path: str) -> list[str]:
    token = path.rpartition("/")[2]
    stranger = Sealer({"test": bytes(range(1, 33))})
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
        unsubscribe_token(stranger, "user_1"),
        # Sealed by the same key, for another use.
        sealer.seal("mailer", b"user_1"),
        sealer.seal("gateway", b"user_1"),
    ]


async def test_a_link_that_is_not_ours_says_so_and_asks_nobody(world: World, path: str) -> None:
    for token in forgeries(world.services.sealer, path):
        for verb in ("GET", "POST"):
            answer = await world.http.request(verb, f"/unsubscribe/{token}")
            assert answer.status_code == 404, token
            assert "does not work" in answer.text, token
    assert world.services.received == []


async def test_other_verbs_and_paths_are_refused(world: World, path: str) -> None:
    assert (await world.http.put(path)).status_code == 405
    for other in ("/unsubscribe", "/unsubscribe/", f"{path}/more"):
        assert (await world.http.post(other)).status_code == 404


@pytest.mark.parametrize(
    ("query", "header", "shown"),
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
async def test_the_page_speaks_the_mails_language_or_else_the_browsers(
    world: World, path: str, query: str, header: str | None, shown: str
) -> None:
    words = {
        "en": ("No more news from us?", "You are unsubscribed"),
        "de": ("Keine Neuigkeiten mehr von uns?", "Sie sind abgemeldet"),
        "fr": ("Ne plus recevoir nos actualités", "Vous êtes désabonné"),
        "es": ("¿No quieres más novedades?", "Te has dado de baja"),
        "it": ("Non vuoi più le nostre novità?", "Iscrizione annullata"),
    }
    headers = {} if header is None else {"accept-language": header}
    for verb, said in zip(("GET", "POST"), words[shown], strict=True):
        answer = await world.http.request(verb, f"{path}{query}", headers=headers)
        assert (answer.status_code, answer.headers["content-language"]) == (200, shown)
        assert f'<html lang="{shown}">' in answer.text
        assert said in answer.text


def test_every_language_says_everything() -> None:
    words = tomllib.loads((Path(unsubscribe.__file__).parent / "templates" / "unsubscribe.toml").read_text())
    assert set(words) == set(LANGUAGES)
    places = {state: set(said) for state, said in words["en"].items() if state != "title"}
    assert set(places) == set(get_args(unsubscribe.State))
    for said in words.values():
        assert {state: set(each) for state, each in said.items() if state != "title"} == places
    every = [text for said in words.values() for state in places for text in said[state].values()]
    assert len(set(every)) == len(every)


async def test_a_body_without_end_is_not_read(world: World, path: str) -> None:
    assert (await world.http.post(path, content=b"x" * 5000)).status_code == 413
    assert world.services.received == []


async def test_what_did_not_work_is_not_called_done(world: World, path: str) -> None:
    world.services.replies["mailer.record-marketing-consent"] = lambda _envelope: Refused("unavailable", "unavailable")
    answer = await world.http.post(path, data=ONE_CLICK)
    assert answer.status_code == 503
    assert "That did not work" in answer.text
    assert "retry-after" in answer.headers


async def test_the_link_stands_in_no_log(world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    dispatch = "services.gateway.dispatch.Dispatcher.dispatch"
    monkeypatch.setattr(dispatch, fail)
    with capture_logs() as logs:
        assert (await world.http.post(path)).status_code == 500
    assert logs
    assert path.rpartition("/")[2] not in str(logs)
