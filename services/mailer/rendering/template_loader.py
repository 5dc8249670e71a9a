"""Template loader: reads Nest's templates, overridden by those in the operator's folder, and checks them.

A mail is one template, ``<locale>/<name>.jinja``, rendered twice: as HTML with ``layout.html`` and ``parts.html``, and
as plain text with ``layout.txt`` and ``parts.txt``. So both have the same content.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateSyntaxError, meta, nodes, pass_context
from jinja2.runtime import Context

from services.mailer.rendering.css_inlining import StyleSheet, UnusableStyle
from shared.messages.mailer.mails import VARIABLES
from shared.messages.mailer.texts import TEXT_VARIABLES

FOLDER: Final = Path(__file__).parent.parent / "templates"
SHARED_FILES: Final = frozenset({"layout.html", "layout.txt", "parts.html", "parts.txt", "styles.css"})
"""Files shared by all locales."""
LOCALE_FILES: Final = frozenset(
    {"letter.jinja", "day.jinja"}
    | {f"{name}.jinja" for name in VARIABLES}
    | {f"texts/{name}.txt" for name in TEXT_VARIABLES}
)
"""Files of one locale. If a locale lacks one, the reader's next language is used."""
COMMON_VARIABLES: Final = frozenset({"looks", "colours", "locale"})
"""Variables of every template: the branding, its palette and the language."""
MAIL_VARIABLES: Final = COMMON_VARIABLES | {"unsubscribe"}
"""``unsubscribe`` is the unsubscribe link; None in mails without one."""
_STYLE_SHEET: Final = "/*styles.css*/"
_Loaded = tuple[str, str | None, None]
_LOCALE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


class UnusableTemplate(Exception):
    """A template cannot be used; the text names the file and the error."""


@dataclass(frozen=True)
class Templates:
    """Template files, by their path below the folder: the content of each, and the path that it was read from."""

    files: Mapping[str, str]
    origins: Mapping[str, Path]

    @classmethod
    def read(cls, override: Path | None = None) -> Templates:
        """Read Nest's templates, overridden by those in another folder.

        Raises:
            UnusableTemplate: the folder contains an unknown or an unreadable file.
        """
        found: dict[str, Path] = {}
        for folder in filter(None, (FOLDER, override)):
            if not folder.is_dir():
                raise UnusableTemplate(f"{folder} is not a folder")
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(folder).as_posix()
                if path.is_dir() or any(part.startswith(".") for part in Path(name).parts):
                    continue
                if not _is_known(name):
                    raise UnusableTemplate(f"{path} is not a template that Nest uses")
                found[name] = path
        return cls({name: _read(path) for name, path in found.items()}, found)

    @cached_property
    def locales(self) -> Mapping[str, frozenset[str]]:
        """File names of each locale."""
        split = [name.split("/", 1) for name in self.files if "/" in name]
        return {locale: frozenset(rest for each, rest in split if each == locale) for locale, _ in split}

    def locales_with(self, file: str) -> list[str]:
        """Return the locales that have a file, such as ``welcome.jinja``."""
        return [locale for locale, files in self.locales.items() if file in files]

    def environment(self, extension: str) -> Environment:
        """Return the Jinja environment that renders templates as ``html`` or ``txt``.

        A template extends ``layout`` or ``<locale>/letter`` and imports from ``parts``; both names resolve to the file
        of the environment's format. Values are escaped in HTML and unchanged in text.
        """
        html = extension == "html"
        environment = Environment(
            loader=FunctionLoader(self._load_html if html else self._load_text),
            autoescape=html,  # noqa: S701 -- text needs no escaping
            undefined=StrictUndefined,
            auto_reload=False,
            cache_size=-1,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters["day"] = _day
        return environment

    def check(self) -> None:
        """Check that every template can be parsed and uses existing variables and classes only.

        Raises:
            UnusableTemplate: a template cannot be used.
        """
        environment = self.environment("html")
        for name in self.files:
            if name.endswith(".css"):
                self._style_sheet  # noqa: B018 -- raises if the sheet is unusable
                continue
            try:
                tree = environment.parse(self.files[name] if name.endswith(".txt") else self._inlined(name))
            except TemplateSyntaxError as error:
                raise UnusableTemplate(f"{self.origins[name]}, line {error.lineno}: {error.message}") from None
            except UnusableStyle as error:
                raise UnusableTemplate(f"{self.origins[name]}: {error}") from None
            unknown = sorted(meta.find_undeclared_variables(tree) - _imported(tree) - _variables(name))
            if unknown:
                raise UnusableTemplate(f"{self.origins[name]}: there is no variable {unknown[0]}")

    def _load_html(self, name: str) -> _Loaded | None:
        file = f"{name}.html" if name in ("layout", "parts") else f"{name}.jinja"
        if file not in self.files:
            return None
        source = self._inlined(file).replace(_STYLE_SHEET, self._style_sheet.media_blocks)
        return source, str(self.origins[file]), None

    def _load_text(self, name: str) -> _Loaded | None:
        file = f"{name}.txt" if name in ("layout", "parts") or "/texts/" in name else f"{name}.jinja"
        return (self.files[file], str(self.origins[file]), None) if file in self.files else None

    def _inlined(self, file: str) -> str:
        return self._style_sheet.inlined(self.files[file])

    @cached_property
    def _style_sheet(self) -> StyleSheet:
        try:
            return StyleSheet.parse(self.files["styles.css"])
        except UnusableStyle as error:
            raise UnusableTemplate(f"{self.origins['styles.css']}: {error}") from None


def describe_failure(failure: Exception, template: str) -> str:
    """Describe why a template could not be rendered, with file and line; the error may be in a file that it uses."""
    # Jinja rewrites the traceback in terms of its templates.
    frames = [each for each in traceback.extract_tb(failure.__traceback__) if Path(each.filename).suffix != ".py"]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else template
    return f"{place}: {type(failure).__name__}: {failure}"


@pass_context
def _day(context: Context, moment: Any) -> str:
    """Format a time as a day in the mail's language, in UTC."""
    return str(context.environment.get_template(f"{context['locale']}/day").render(moment=moment)).strip()


def _is_known(name: str) -> bool:
    locale, _, rest = name.partition("/")
    return name in SHARED_FILES or (rest in LOCALE_FILES and _LOCALE.fullmatch(locale) is not None)


def _imported(tree: nodes.Template) -> set[str]:
    """Return the names of the macros that a template imports, which its blocks may use too."""
    names = [name for node in tree.find_all(nodes.FromImport) for name in node.names]
    return {name if isinstance(name, str) else name[1] for name in names}


def _variables(name: str) -> frozenset[str]:
    """Return the variables that a file may use."""
    stem = Path(name).stem
    if stem == "day":
        return frozenset({"moment"})
    if "/texts/" in name:
        return COMMON_VARIABLES | {"domain", *TEXT_VARIABLES[stem].model_fields}  # type: ignore[index]
    if name.endswith(".jinja") and stem != "letter":
        return MAIL_VARIABLES | set(VARIABLES[stem].model_fields)  # type: ignore[index]
    return MAIL_VARIABLES


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise UnusableTemplate(f"{path} cannot be read: {type(failure).__name__}") from None
