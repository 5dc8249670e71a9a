"""Which parameters did a call bring? Stripe's form encoding, read strictly."""

from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import parse_qsl

from services.stripe_double.errors import StripeApiError

MAX_DEPTH = 8
MAX_INDEX = 6
MAX_METADATA_KEYS = 50
MAX_METADATA_KEY = 40
MAX_METADATA_VALUE = 500


def decode(encoded: bytes) -> dict[str, Any]:
    """Turns `a[b][0][c]=v` into `{"a": {"b": [{"c": "v"}]}}`; every leaf is text.

    Raises:
        StripeApiError: 400 when the text isn't UTF-8 or a key is nested deeper than 8 levels.
    """
    try:
        pairs = parse_qsl(encoded.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise StripeApiError("Invalid request: the parameters are not UTF-8.") from error
    tree: dict[str, Any] = {}
    for key, value in pairs:
        _plant(tree, key, value)
    return {name: _with_lists(name, value) for name, value in tree.items()}


def _plant(tree: dict[str, Any], key: str, value: str) -> None:
    head, _, rest = key.partition("[")
    path = [head, *(part.rstrip("]") for part in rest.split("["))] if rest else [head]
    if len(path) > MAX_DEPTH:
        raise StripeApiError(f"Invalid request: {head} is nested too deeply.", param=head)
    node = tree
    for part in path[:-1]:
        child = node.setdefault(part or str(len(node)), {})
        if not isinstance(child, dict):
            raise StripeApiError(f"Invalid request: {head} is both a value and an object.", param=head)
        node = child
    node[path[-1] or str(len(node))] = value


def _with_lists(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    # Metadata is the caller's own: its keys may be numbers without being positions.
    if name != "metadata" and all(key.isascii() and key.isdigit() and len(key) < MAX_INDEX for key in value):
        return [_with_lists(key, value[key]) for key in sorted(value, key=int)]
    return {key: _with_lists(key, child) for key, child in value.items()}


class Params:
    """The parameters of one call or of one object inside it; each is read once, the rest is unknown.

    An empty text means "unset this", as in Stripe's API: readers return None for it, and
    `name in params` tells it from a parameter that was not sent.

    Args:
        values: Decoded parameters.
        path: Where they stand in the call, for the `param` of errors (`items[0]`).
    """

    def __init__(self, values: dict[str, Any], path: str = "") -> None:
        self.values = values
        self._path = path
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def spelled(self, name: str) -> str:
        """Returns the form-encoded spelling of a parameter of this object."""
        return f"{self._path}[{name}]" if self._path else name

    def refuse(self, name: str, message: str, code: str | None = None) -> StripeApiError:
        """Makes a 400 that names the parameter at fault."""
        return StripeApiError(message, code=code, param=self.spelled(name))

    def raw(self, name: str) -> Any:
        """Returns the decoded value as it is, None when absent."""
        self._read.add(name)
        return self.values.get(name)

    def text(self, name: str, default: str | None = None) -> str | None:
        """Returns a text; None when it is to be unset."""
        self._read.add(name)
        if name not in self.values:
            return default
        value = self.values[name]
        if not isinstance(value, str):
            raise self.refuse(name, f"Invalid string: {name}")
        return value or None

    def needed(self, name: str) -> str:
        """Returns a text that must be there (`parameter_missing` otherwise)."""
        value = self.text(name)
        if value is None:
            raise self.refuse(name, f"Missing required param: {self.spelled(name)}.", "parameter_missing")
        return value

    def integer(self, name: str, default: int | None = None, *, least: int | None = None) -> int | None:
        """Returns a whole number, at least `least`."""
        text = self.text(name)
        if text is None:
            return default
        try:
            number = int(text)
        except ValueError as error:
            raise self.refuse(name, f"Invalid integer: {text}", "parameter_invalid_integer") from error
        if least is not None and number < least:
            raise self.refuse(
                name, f"This value must be greater than or equal to {least}.", "parameter_invalid_integer"
            )
        return number

    def number(self, name: str) -> float | None:
        """Returns a decimal number."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return float(text)
        except ValueError as error:
            raise self.refuse(name, f"Invalid decimal: {text}") from error

    def flag(self, name: str, *, default: bool | None = None) -> bool | None:
        """Returns a Boolean, spelled `true` or `false`."""
        text = self.text(name)
        if text is None:
            return default
        if text not in {"true", "false"}:
            raise self.refuse(name, f"Invalid boolean: {text}")
        return text == "true"

    def choice(self, name: str, options: Collection[str], default: str | None = None) -> str | None:
        """Returns one of the options."""
        text = self.text(name, default)
        if text is not None and text not in options:
            raise self.refuse(name, f"Invalid {name}: must be one of {', '.join(sorted(options))}")
        return text

    def child(self, name: str) -> "Params | None":
        """Returns an object inside this one; None when absent or to be unset."""
        value = self.raw(name)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise self.refuse(name, f"Invalid object: {name}")
        return Params(value, self.spelled(name))

    def children(self, name: str) -> "list[Params]":
        """Returns a list of objects; empty when absent or to be unset."""
        return [
            Params(value, f"{self.spelled(name)}[{index}]")
            for index, value in enumerate(self._listed(name))
            if isinstance(value, dict)
        ]

    def texts(self, name: str) -> list[str]:
        """Returns a list of texts; empty when absent or to be unset."""
        return [value for value in self._listed(name) if isinstance(value, str)]

    def _listed(self, name: str) -> list[Any]:
        value = self.raw(name)
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            raise self.refuse(name, f"Invalid array: {name}")
        return value

    def metadata(self, current: dict[str, str] | None = None) -> dict[str, str]:
        """Returns `current` with the metadata of this call laid over it.

        An empty value removes its key, an empty `metadata` removes all
        (docs.stripe.com/api/metadata: 50 keys, keys of 40 and values of 500 characters).
        """
        merged = dict(current or {})
        given = self.raw("metadata")
        if given is None:
            return merged
        if given == "":
            return {}
        if not isinstance(given, dict):
            raise self.refuse("metadata", "Invalid object: metadata")
        for key, value in given.items():
            if not isinstance(value, str) or len(value) > MAX_METADATA_VALUE or len(key) > MAX_METADATA_KEY:
                raise self.refuse("metadata", f"Invalid metadata: {key}")
            if value:
                merged[key] = value
            else:
                merged.pop(key, None)
        if len(merged) > MAX_METADATA_KEYS:
            raise self.refuse("metadata", f"Metadata may have up to {MAX_METADATA_KEYS} keys.")
        return merged

    def given(self, names: Iterable[str]) -> dict[str, str | None]:
        """Returns those texts that were sent, None for those to be unset."""
        return {name: self.text(name) for name in names if name in self.values}

    def finish(self) -> None:
        """Refuses what nobody has read (`parameter_unknown`), before any work is done."""
        for name in self.values:
            if name not in self._read:
                raise self.refuse(name, f"Received unknown parameter: {self.spelled(name)}", "parameter_unknown")
