"""Pages behind the links in mails: a few words and a button, in the language of the mail, without scripts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from urllib.parse import parse_qs

from services.gateway.cached_content import HTML, page_headers, page_templates, template_text
from services.gateway.requests import HttpRequest
from services.gateway.responses import HeaderList, HttpResponse
from shared.mail import LANGUAGE_PARAMETER
from shared.messages.languages import best_locale, language_tag


@dataclass(frozen=True, slots=True)
class PagePolicy:
    """Parts of a content security policy (CSP Level 3): where forms may post to, and whose images may be shown."""

    form_action: str = "'none'"
    image_source: str = "'none'"


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
        self.headers = _headers(self._style, PagePolicy(form_action))
        """Of every response of the page in its usual colours."""

    def response(
        self,
        request: HttpRequest,
        state: str,
        status: int,
        *,
        colours: str = "",
        policy: PagePolicy | None = None,
        **variables: str,
    ) -> HttpResponse:
        """The page in a state, with the status and the variables of its template.

        ``colours`` is CSS that follows the page's own, ``policy`` replaces that of the page.
        """
        locale = self._locale(request)
        texts = self._texts[locale]
        style = self._style + colours
        content = self._template.render(
            locale=locale, title=texts["title"], texts=texts[state], state=state, style=style, **variables
        )
        own = self.headers if policy is None else _headers(style, policy)
        headers = (*own, (b"content-language", locale.encode()))
        return HttpResponse(status, content.encode(), headers, HTML)

    def _locale(self, request: HttpRequest) -> str:
        """Language of the mail according to the link, else the one that the browser prefers."""
        query = parse_qs(request.scope["query_string"].decode("latin-1"))
        of_mail = language_tag(query.get(LANGUAGE_PARAMETER, [""])[-1])
        return best_locale((of_mail, *request.languages), self._texts)


def _headers(style: str, policy: PagePolicy) -> HeaderList:
    headers = page_headers(style, form_action=policy.form_action, image_source=policy.image_source)
    return (*headers, (b"x-robots-tag", b"noindex"))
