"""Pages behind the links in mails: a few words and a button, in the language of the mail, without scripts."""

from __future__ import annotations

import tomllib
from urllib.parse import parse_qs

from services.gateway.cached_content import HTML, page_headers, page_templates, template_text
from services.gateway.requests import HttpRequest
from services.gateway.responses import HttpResponse
from shared.mail import LANGUAGE_PARAMETER
from shared.messages.languages import best_locale, language_tag


class LinkPage:
    """One page in several languages and states.

    Args:
        name: the name of its files: ``<name>.html``, which extends ``link_pages.html``, and ``<name>.toml`` with the
            texts by language and state.
        form_action: where its forms may post to.
    """

    def __init__(self, name: str, *, form_action: str = "'none'") -> None:
        self._template = page_templates().get_template(f"{name}.html")
        self._texts = tomllib.loads(template_text(f"{name}.toml"))
        self._style = template_text("link_pages.css")
        self.headers = (*page_headers(self._style, form_action=form_action), (b"x-robots-tag", b"noindex"))
        """Of every response of the page."""

    def response(self, request: HttpRequest, state: str, status: int, **variables: str) -> HttpResponse:
        """The page in a state, with the status and the variables of its template."""
        locale = self._locale(request)
        texts = self._texts[locale]
        content = self._template.render(
            locale=locale, title=texts["title"], texts=texts[state], state=state, style=self._style, **variables
        )
        headers = (*self.headers, (b"content-language", locale.encode()))
        return HttpResponse(status, content.encode(), headers, HTML)

    def _locale(self, request: HttpRequest) -> str:
        """Language of the mail according to the link, else the one that the browser prefers."""
        query = parse_qs(request.scope["query_string"].decode("latin-1"))
        of_mail = language_tag(query.get(LANGUAGE_PARAMETER, [""])[-1])
        return best_locale((of_mail, *request.languages), self._texts)
