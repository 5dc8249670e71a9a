"""Pages of a client's branding, with a live preview of its mails as the running mailer renders them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from services.gateway.console.calls import CallRefused
from services.gateway.console.clients import find_client, path_of
from services.gateway.console.deliveries import TEMPLATES
from services.gateway.console.pages import PageTable, Visit
from services.gateway.responses import HeaderList, HttpResponse
from shared.messages.mailer.branding import ClientLooks
from shared.pages.pages import HTML, page_headers

BRANDING: Final = PageTable()
LOOKS: Final = tuple(ClientLooks.model_fields)
LOCALES: Final = ("", "en", "de", "es", "fr", "it")
SCHEMES: Final = {"light": "not all", "dark": "all"}
"""Media condition in place of the reader's colour scheme: a frame has that of the browser."""
_DARK: Final = "(prefers-color-scheme: dark)"
_FRAME: Final[HeaderList] = (
    (
        b"content-security-policy",
        b"sandbox; default-src 'none'; img-src http: https: data:; style-src 'unsafe-inline'; frame-ancestors 'self'",
    ),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of a previewed mail. Its document runs no script and belongs to no origin."""


@BRANDING.page("/console/clients/{id}/branding")
async def branding(visit: Visit) -> HttpResponse:
    """The branding of a client, and a preview of what is typed, or else saved."""
    client = await find_client(visit)
    looks = await visit.call("get_client_looks", client_id=client["id"])
    response = visit.page(
        "branding.html",
        client=client,
        looks=looks,
        templates=TEMPLATES,
        locales=LOCALES,
        **_preview(visit, looks["chosen"]),
    )
    policy = page_headers(referrer="same-origin", frame_src="'self'")["content-security-policy"].encode()
    response.headers = tuple(
        (name, policy if name == b"content-security-policy" else value) for name, value in response.headers
    )
    return response


@BRANDING.act("/console/clients/{id}/branding", page=branding)
async def set_branding(visit: Visit) -> HttpResponse:
    """Set the branding; empty fields get the deployment's values."""
    await visit.call("set_client_looks", client_id=visit.path["id"], **_typed(visit.form))
    return visit.done(f"{path_of(visit.path['id'])}/branding", "Mails and texts have this branding within a second.")


@BRANDING.act("/console/clients/{id}/branding/reset", page=branding)
async def reset_branding(visit: Visit) -> HttpResponse:
    """Reset the branding to that of the deployment."""
    await visit.call("set_client_looks", client_id=visit.path["id"])
    return visit.done(f"{path_of(visit.path['id'])}/branding", "Mails and texts have the deployment's branding again.")


@BRANDING.page("/console/clients/{id}/branding/preview")
async def preview(visit: Visit) -> HttpResponse:
    """The part of the page with the preview, for what is typed."""
    problem, mail = "", None
    try:
        mail = await _mail(visit)
    except CallRefused as refused:
        problem = refused.sentence.removeprefix("looks.")
    return visit.page("branding_preview.html", mail=mail, problem=problem, **_preview(visit, visit.query))


@BRANDING.page("/console/clients/{id}/branding/mail")
async def mail(visit: Visit) -> HttpResponse:
    """The previewed mail as a document of its own, for a frame."""
    rendered = await _mail(visit)
    condition = SCHEMES.get(visit.query.get("scheme", ""), SCHEMES["light"])
    html = rendered["html"].replace(_DARK, condition)
    return HttpResponse(HTTPStatus.OK, html.encode(), _FRAME, HTML.encode())


async def _mail(visit: Visit) -> Any:
    return await visit.call(
        "preview_mail",
        template=visit.query.get("template") or TEMPLATES[0],
        client_id=visit.path["id"],
        looks=_typed(visit.query),
        locale=visit.query.get("preview_locale") or None,
    )


def _typed(fields: dict[str, Any]) -> dict[str, str]:
    """The fields of the branding that are not empty."""
    values = {name: str(fields.get(name) or "").strip() for name in LOOKS}
    return {name: value for name, value in values.items() if value}


def _preview(visit: Visit, looks: dict[str, Any]) -> dict[str, Any]:
    """Variables of the preview: its choices, and the path of the mail."""
    choices = {
        "template": visit.query.get("template") or TEMPLATES[0],
        "preview_locale": visit.query.get("preview_locale", ""),
        "scheme": visit.query.get("scheme") or "light",
    }
    query = urlencode({**_typed(looks), **choices})
    base = f"{path_of(visit.path['id'])}/branding"
    return {"choices": choices, "base": base, "mail_path": f"{base}/mail?{query}", "schemes": tuple(SCHEMES)}
