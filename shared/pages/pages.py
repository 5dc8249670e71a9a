"""Server-rendered pages: a Jinja environment, strict headers and static files with a content hash in their URL.

A program with pages makes one `Pages` of its package, whose folders `templates/` and `static/` it reads:

    PAGES = Pages("services.embedded", static_path="/dev/static")
    text = PAGES.render("inbox.html", arrivals=arrivals)      # body of a response with `page_headers()`
    file = PAGES.static(path_after_static_path)               # None: respond with 404

Its templates extend `pages/layout.html`, import macros from `pages/macros.html`, and link files by
`{{ static("inbox.js") }}`. No page has inline scripts or styles: `page_headers` forbids them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

PACKAGE: Final = "shared.pages"
HTML: Final = "text/html; charset=utf-8"
"""Media type of a page."""
_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
"""Media types of static files by the end of their name; other files of the folders are not served."""
_HASH_DIGITS: Final = 16
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


def page_headers(*, referrer: str = "no-referrer", **directives: str) -> dict[str, str]:
    """Headers of every page: a strict content security policy (CSP Level 3), no caching, no referrer, no sniffing.

    Args:
        referrer: the `Referrer-Policy`. With `no-referrer` browsers send `Origin: null` with a form (Fetch, section
            "append a request `Origin` header"); pages that check the origin of their forms need `same-origin`.
        directives: additions to the policy and replacements, with `_` for `-`, such as `frame_src="'self'"`.
    """
    policy = _POLICY | {name.replace("_", "-"): value for name, value in directives.items()}
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cache-control": "no-store",
        "referrer-policy": referrer,
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as a response: 200, `content`, `media_type` and `headers`."""

    content: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


class Pages:
    """Templates and static files of one program.

    Args:
        package: the importable package with the folders `templates/` and, optionally, `static/`.
        static_path: path under which the program serves static files, without a slash at the end.
        variables: global variables of the templates.

    The URL of a static file is `<static_path>/<hash>/<name>`. One hash covers all files, so that a module imports its
    neighbour by `./name.js`.
    """

    def __init__(self, package: str, *, static_path: str, variables: Mapping[str, object] | None = None) -> None:
        self._files = _static_files(PACKAGE) | _static_files(package)
        digest = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            digest.update(name.encode() + b"\0" + content + b"\0")
        self._hash = digest.hexdigest()[:_HASH_DIGITS]
        self._static_path = static_path
        self.environment = Environment(
            loader=ChoiceLoader([PackageLoader(package), PrefixLoader({"pages": PackageLoader(PACKAGE)})]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals.update(variables or {}, static=self.static_url)

    def render(self, template: str, **variables: object) -> str:
        """Render a page of the package, or a shared one as `pages/<name>`."""
        return self.environment.get_template(template).render(variables)

    def static_url(self, name: str) -> str:
        """Return the path of a static file, of the package or a shared one.

        Raises:
            KeyError: no folder has the file.
        """
        if name not in self._files:
            raise KeyError(name)
        return f"{self._static_path}/{self._hash}/{name}"

    def static(self, path: str) -> StaticFile | None:
        """Find a static file by its path after `static_path` and a slash: `<hash>/<name>`, or `<name>` alone.

        Browsers keep a file for a year by its current hash. By another hash they get the current file and do not keep
        it: during an upgrade two versions serve pages, and each may get a request for a file of the other.
        """
        version, _, name = path.rpartition("/")
        content = self._files.get(name)
        if content is None or "/" in version:
            return None
        caching = "public, max-age=31536000, immutable" if version == self._hash else "no-store"
        headers = page_headers() | {"cache-control": caching}
        return StaticFile(content, _TYPES[name.rpartition(".")[2]], headers)


def _static_files(package: str) -> dict[str, bytes]:
    folder = files(package) / "static"
    if not folder.is_dir():
        return {}
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
