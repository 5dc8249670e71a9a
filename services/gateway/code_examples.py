"""Examples of one call of the API: with curl, with the Python client, and with the TypeScript client."""

from __future__ import annotations

import json
import keyword
import re
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.versions import BASE_VERSION, VERSIONS

TOKEN: Final = "TOKEN"  # noqa: S105 -- the name of a variable
KEY: Final = "KEY"
_CLIENT_PATH: Final = f"/{BASE_VERSION}/{VERSIONS[-1].date}/"
"""Paths whose methods the clients have: those of the newest version."""
_CLIENT_ROUTES: Final = re.compile(r"/(init|verify|login|register|appowner|applications|users)\b.*")
"""Paths that the TypeScript client has besides: phone login and accounts."""
_HEADERS: Final = {"bearer": f"authorization: bearer ${TOKEN}", "owner": f"authorization: bearer ${TOKEN}"}
_INTERNAL_HEADER: Final = f"authorization: internal ${KEY}"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w$]*")


@dataclass(frozen=True, slots=True)
class Example:
    """A language and the source of one call."""

    id: str
    label: str
    source: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        operation_id: as in the OpenAPI document.
        verb: HTTP method.
        base: URL of the Nest, without a slash at the end.
        path: with path parameters in braces.
        scheme: the credential that it sends: ``bearer``, ``internal``, ``owner``, or empty for none.
        body: JSON body; None if there is none.
    """

    operation_id: str
    verb: str
    base: str
    path: str
    scheme: str
    body: Any

    def examples(self) -> list[Example]:
        """The examples, curl first."""
        return [
            Example("curl", "curl", self._curl()),
            Example("python", "Python", self._python()),
            Example("typescript", "TypeScript", self._typescript()),
        ]

    @property
    def _of_clients(self) -> bool:
        return self.path.startswith(_CLIENT_PATH)

    def _curl(self) -> str:
        option = "" if self.verb in {"GET", "POST"} else f"-X {self.verb} "
        if self.verb == "POST" and self.body is None:
            option = "-X POST "
        words = [f"curl -s {option}{self.base}{self.path}"]
        if self.scheme:
            words.append(f'-H "{_HEADERS.get(self.scheme, _INTERNAL_HEADER)}"')
        if self.body is not None:
            # An apostrophe ends a quoted word of the shell.
            text = formatted(self.body).replace("'", "'\\''")
            words.append(f"-d '{text}'")
        return " \\\n  ".join(words)

    def _python(self) -> str:
        if not self._of_clients:
            return self._httpx()
        caller, imports, opening = "client", "Client", f'client = Client("{self.base}")'
        if self.scheme == "internal":
            opening = f'client = Client("{self.base}", internal_key={KEY})'
        elif self.scheme == "bearer":
            caller, imports = "session", "Client, FileStore"
            opening = f'session = Client("{self.base}").session(FileStore("tokens.json"))'
        name = self.path.removeprefix(_CLIENT_PATH)
        arguments = [f"    {argument(key)}={_literal(value, 1)},\n" for key, value in (self.body or {}).items()]
        call = f"{caller}.{name}(" + (f"\n{''.join(arguments)})" if arguments else ")")
        return f"from nest_client import {imports}\n\n{opening}\n{call}"

    def _httpx(self) -> str:
        arguments = [f'    "{self.base}{self.path}",\n']
        if self.scheme:
            header = f'f"internal {{{KEY}}}"' if self.scheme == "internal" else f'f"bearer {{{TOKEN}}}"'
            arguments.append(f'    headers={{"authorization": {header}}},\n')
        if self.body is not None:
            arguments.append(f"    json={_literal(self.body, 1)},\n")
        call = f"httpx.{self.verb.lower()}"
        if self.verb == "DELETE" and self.body is not None:
            call, arguments = "httpx.request", ['    "DELETE",\n', *arguments]
        return f"import httpx\n\nresponse = {call}(\n{''.join(arguments)})\nresponse.json()"

    def _typescript(self) -> str:
        if not self._of_clients and not _CLIENT_ROUTES.fullmatch(self.path):
            return self._fetch()
        caller = "session" if self.scheme == "bearer" else "client"
        imports = 'import { Client } from "@nest/client";\n'
        opening = f'const client = new Client("{self.base}");'
        if self.scheme == "internal":
            opening = f'const client = new Client("{self.base}", {{ internalKey: {KEY} }});'
        elif self.scheme == "bearer":
            imports += 'import { FileStore } from "@nest/client/node";\n'
            opening = f'const session = new Client("{self.base}").session(new FileStore("tokens.json"));'
        fields = dict.fromkeys(re.findall(r"{(\w+)}", self.path), "…") | (self.body or {})
        options = f", {{ token: {TOKEN} }}" if self.scheme == "owner" else ""
        written = _object(fields, 0) if fields else ""
        return f"{imports}\n{opening}\nawait {caller}.{camel_case(self.operation_id)}({written}{options});"

    def _fetch(self) -> str:
        options = [] if self.verb == "GET" else [f'  method: "{self.verb}",\n']
        if self.scheme:
            scheme, value = ("internal", KEY) if self.scheme == "internal" else ("bearer", TOKEN)
            options.append(f"  headers: {{ authorization: `{scheme} ${{{value}}}` }},\n")
        if self.body is not None:
            options.append(f"  body: JSON.stringify({_object(self.body, 1)}),\n")
        written = f", {{\n{''.join(options)}}}" if options else ""
        return f'const response = await fetch("{self.base}{self.path}"{written});'


def formatted(example: Any) -> str:
    """A value as indented JSON, a text as it is."""
    return json.dumps(example, indent=2, ensure_ascii=False) if isinstance(example, dict | list) else str(example)


def camel_case(name: str) -> str:
    """The name of a method in the TypeScript client: ``sendMagicLink``."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def argument(name: str) -> str:
    """The name of a parameter in the Python client."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _literal(value: Any, depth: int) -> str:
    """A value as a literal of Python, with an item per line if it is long."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list):
        return repr(value)
    if isinstance(value, dict):
        items = [f"{_literal(key, 0)}: {_literal(each, depth + 1)}" for key, each in value.items()]
    else:
        items = [_literal(each, depth + 1) for each in value]
    return _wrapped(items, "{}" if isinstance(value, dict) else "[]", "", depth, "    ")


def _object(value: Any, depth: int) -> str:
    """A value as a literal of TypeScript."""
    if isinstance(value, dict):
        items = [
            f"{key if _IDENTIFIER.fullmatch(key) else json.dumps(key)}: {_object(each, depth + 1)}"
            for key, each in value.items()
        ]
        return _wrapped(items, "{}", " ", depth, "  ")
    if isinstance(value, list):
        return _wrapped([_object(each, depth + 1) for each in value], "[]", "", depth, "  ")
    return json.dumps(value, ensure_ascii=False)


def _wrapped(items: list[str], brackets: str, padding: str, depth: int, indent: str) -> str:
    opening, closing = brackets[0], brackets[1]
    line = ", ".join(items)
    if not items:
        return brackets
    if len(line) <= 48 and "\n" not in line:  # noqa: PLR2004 -- fits beside a field's name in the column of examples
        return f"{opening}{padding}{line}{padding}{closing}"
    inner = "".join(f"{indent * (depth + 1)}{item},\n" for item in items)
    return f"{opening}\n{inner}{indent * depth}{closing}"
