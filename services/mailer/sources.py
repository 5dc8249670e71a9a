"""Where do templates come from? The folder beside this file, and before it one of the operator's own.

A mail is one template, ``<locale>/<name>.jinja``, rendered twice: as HTML with ``layout.html`` and ``parts.html``, as
text with ``layout.txt`` and ``parts.txt``. So both say the same.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jinja2 import (
    Environment,
    FunctionLoader,
    StrictUndefined,
    TemplateSyntaxError,
    meta,
    nodes,
    pass_context,
)
from jinja2.runtime import Context

from services.mailer.errors import UnusableTemplate
from services.mailer.inlining import Sheet
from shared.messages.mailer.mails import VARIABLES
from shared.messages.mailer.texts import TEXT_VARIABLES

FOLDER: Final = Path(__file__).parent / "templates"
SHARED: Final = frozenset({"layout.html", "layout.txt", "parts.html", "parts.txt", "styles.css"})
"""What all locales share."""
KNOWN: Final = frozenset(
    {"letter.jinja", "day.jinja"}
    | {f"{name}.jinja" for name in VARIABLES}
    | {f"texts/{name}.txt" for name in TEXT_VARIABLES}
)
"""What a locale may have. A whole one has all; where a file is missing, the next language is written."""
ALWAYS_GIVEN: Final = frozenset({"looks", "colours", "locale"})
GIVEN_TO_MAILS: Final = ALWAYS_GIVEN | {"unsubscribe"}
"""``unsubscribe`` is where a reader is rid of news; none in mails that are not to be refused."""
_SHEET: Final = "/*styles.css*/"
_Loaded = tuple[str, str | None, None]
_LOCALE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


@dataclass(frozen=True)
class Sources:
    """The files of templates, by their path below the folder.

    Attributes:
        files: what each holds.
        origins: where each was read.
    """

    files: Mapping[str, str]
    origins: Mapping[str, Path]

    @classmethod
    def read(cls, own: Path | None = None) -> Sources:
        """The templates of this release, with those of a folder in their place.

        Raises:
            UnusableTemplate: the folder has a file that is no template, or one that can't be read.
        """
        found: dict[str, Path] = {}
        for folder in filter(None, (FOLDER, own)):
            if not folder.is_dir():
                raise UnusableTemplate(f"{folder} is not a folder")
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(folder).as_posix()
                if path.is_dir() or any(part.startswith(".") for part in Path(name).parts):
                    continue
                if not _is_known(name):
                    raise UnusableTemplate(f"{path} is no template that Nest knows")
                found[name] = path
        return cls({name: _text(path) for name, path in found.items()}, found)

    @cached_property
    def locales(self) -> Mapping[str, frozenset[str]]:
        """Each locale's own files."""
        split = [name.split("/", 1) for name in self.files if "/" in name]
        return {locale: frozenset(rest for each, rest in split if each == locale) for locale, _ in split}

    def having(self, file: str) -> list[str]:
        """The locales that have a file: ``welcome.jinja``."""
        return [locale for locale, files in self.locales.items() if file in files]

    def environment(self, extension: str) -> Environment:
        """What renders templates as ``html`` or as ``txt``.

        A template extends ``layout``, or ``<locale>/letter``, and imports from ``parts``; both lead to the file of its
        own kind. What is inserted into HTML is escaped; text is left as it is.
        """
        html = extension == "html"
        environment = Environment(
            loader=FunctionLoader(self._html if html else self._plain),
            autoescape=html,  # noqa: S701 -- text is no HTML
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
        """Look whether each template can be read, and knows no variable but those that it is given.

        Raises:
            UnusableTemplate: one can't be used.
        """
        environment = self.environment("html")
        for name in self.files:
            if name.endswith(".css"):
                self._sheet  # noqa: B018 -- reading it finds what is wrong with it
                continue
            try:
                tree = environment.parse(self.files[name] if name.endswith(".txt") else self._inlined(name))
            except TemplateSyntaxError as wrong:
                raise UnusableTemplate(f"{self.origins[name]}, line {wrong.lineno}: {wrong.message}") from None
            except UnusableTemplate as wrong:
                raise UnusableTemplate(f"{self.origins[name]}: {wrong}") from None
            unknown = sorted(meta.find_undeclared_variables(tree) - _imported(tree) - _given(name))
            if unknown:
                raise UnusableTemplate(f"{self.origins[name]}: there is no variable {unknown[0]}")

    def _html(self, name: str) -> _Loaded | None:
        file = f"{name}.html" if name in ("layout", "parts") else f"{name}.jinja"
        if file not in self.files:
            return None
        source = self._inlined(file).replace(_SHEET, self._sheet.conditional)
        return source, str(self.origins[file]), None

    def _plain(self, name: str) -> _Loaded | None:
        file = f"{name}.txt" if name in ("layout", "parts") or "/texts/" in name else f"{name}.jinja"
        return (self.files[file], str(self.origins[file]), None) if file in self.files else None

    def _inlined(self, file: str) -> str:
        return self._sheet.inlined(self.files[file])

    @cached_property
    def _sheet(self) -> Sheet:
        try:
            return Sheet.read(self.files["styles.css"])
        except UnusableTemplate as wrong:
            raise UnusableTemplate(f"{self.origins['styles.css']}: {wrong}") from None


def in_words(failure: Exception, meant: str) -> str:
    """What is wrong with a template that could not be rendered, and in which file.

    Args:
        failure: what came of rendering it.
        meant: which one was to be rendered; the fault may be in one that it uses.
    """
    # Jinja has written the traceback anew, in terms of its templates.
    frames = [each for each in traceback.extract_tb(failure.__traceback__) if Path(each.filename).suffix != ".py"]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else meant
    return f"{place}: {type(failure).__name__}: {failure}"


@pass_context
def _day(context: Context, moment: Any) -> str:
    """A moment's day as the mail's language writes it, in UTC."""
    return str(context.environment.get_template(f"{context['locale']}/day").render(moment=moment)).strip()


def _is_known(name: str) -> bool:
    locale, _, rest = name.partition("/")
    return name in SHARED or (rest in KNOWN and _LOCALE.fullmatch(locale) is not None)


def _imported(tree: nodes.Template) -> set[str]:
    """The pieces that a template has imported, which its blocks know too."""
    return {
        name if isinstance(name, str) else name[1] for node in tree.find_all(nodes.FromImport) for name in node.names
    }


def _given(name: str) -> frozenset[str]:
    """The variables that a file may show."""
    stem = Path(name).stem
    if stem == "day":
        return frozenset({"moment"})
    if "/texts/" in name:
        return ALWAYS_GIVEN | {"domain", *TEXT_VARIABLES[stem].model_fields}  # type: ignore[index]
    if name.endswith(".jinja") and stem != "letter":
        return GIVEN_TO_MAILS | set(VARIABLES[stem].model_fields)  # type: ignore[index]
    return GIVEN_TO_MAILS


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise UnusableTemplate(f"{path} can't be read: {type(failure).__name__}") from None
