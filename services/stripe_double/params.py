"""Request parameters: Stripe's form encoding, parsed and validated strictly."""

from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import parse_qsl

from services.stripe_double.errors import StripeApiError

MAX_DEPTH = 8
MAX_INDEX_DIGITS = 5
MAX_METADATA_KEYS = 50
MAX_METADATA_KEY = 40
MAX_METADATA_VALUE = 500


def decode(encoded: bytes) -> dict[str, Any]:
    """Decode `a[b][0][c]=v` to `{"a": {"b": [{"c": "v"}]}}`; every leaf is a string.

    Raises:
        StripeApiError: 400 if the text is not UTF-8 or a key has more than 8 levels.
    """
    try:
        pairs = parse_qsl(encoded.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise StripeApiError("Invalid request: the parameters are not UTF-8.") from error
    tree: dict[str, Any] = {}
    for key, value in pairs:
        _insert(tree, key, value)
    return {name: _with_lists(name, value) for name, value in tree.items()}


def _insert(tree: dict[str, Any], key: str, value: str) -> None:
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
    """Turn objects whose keys are all indexes into lists, at every level."""
    if not isinstance(value, dict):
        return value
    # Callers choose the keys of metadata: numbers there are keys, not indexes.
    if name != "metadata" and all(key.isascii() and key.isdigit() and len(key) <= MAX_INDEX_DIGITS for key in value):
        return [_with_lists(key, value[key]) for key in sorted(value, key=int)]
    return {key: _with_lists(key, child) for key, child in value.items()}


class Params:
    """The parameters of one request, or of one object inside it.

    Each reader marks its parameter as known; `reject_unknown` refuses the others. An empty string
    means "unset this", as in Stripe's API: readers return None for it, and `name in params` tells it
    from a parameter that was not sent.

    Args:
        values: Decoded parameters.
        path: Form-encoded position of this object in the request (`items[0]`), for the `param` of errors.
    """

    def __init__(self, values: dict[str, Any], path: str = "") -> None:
        self.values = values
        self._path = path
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def encoded_name(self, name: str) -> str:
        """Return the form-encoded spelling of a parameter of this object."""
        return f"{self._path}[{name}]" if self._path else name

    def invalid(self, name: str, message: str, code: str | None = None) -> StripeApiError:
        """Return a 400 that names the invalid parameter."""
        return StripeApiError(message, code=code, param=self.encoded_name(name))

    def missing(self, name: str) -> StripeApiError:
        """Return the 400 `parameter_missing` of a required parameter."""
        return self.invalid(name, f"Missing required param: {self.encoded_name(name)}.", "parameter_missing")

    def raw(self, name: str) -> Any:
        """Return the decoded value without validation; None if absent."""
        self._read.add(name)
        return self.values.get(name)

    def string(self, name: str, default: str | None = None) -> str | None:
        """Return a string; `default` if absent, None if it is to be unset."""
        self._read.add(name)
        if name not in self.values:
            return default
        value = self.values[name]
        if not isinstance(value, str):
            raise self.invalid(name, f"Invalid string: {name}")
        return value or None

    def required(self, name: str) -> str:
        """Return a string that must be present.

        Raises:
            StripeApiError: 400 `parameter_missing`.
        """
        value = self.string(name)
        if value is None:
            raise self.missing(name)
        return value

    def integer(self, name: str, default: int | None = None, *, minimum: int | None = None) -> int | None:
        """Return a whole number that is at least `minimum`."""
        text = self.string(name)
        if text is None:
            return default
        try:
            number = int(text)
        except ValueError as error:
            raise self.invalid(name, f"Invalid integer: {text}", "parameter_invalid_integer") from error
        if minimum is not None and number < minimum:
            raise self.invalid(
                name, f"This value must be greater than or equal to {minimum}.", "parameter_invalid_integer"
            )
        return number

    def required_integer(self, name: str, *, minimum: int | None = None) -> int:
        """Return a whole number that must be present.

        Raises:
            StripeApiError: 400 `parameter_missing`, or `parameter_invalid_integer` below `minimum`.
        """
        number = self.integer(name, minimum=minimum)
        if number is None:
            raise self.missing(name)
        return number

    def decimal(self, name: str) -> float | None:
        """Return a decimal number."""
        text = self.string(name)
        if text is None:
            return None
        try:
            return float(text)
        except ValueError as error:
            raise self.invalid(name, f"Invalid decimal: {text}") from error

    def boolean(self, name: str, *, default: bool | None = None) -> bool | None:
        """Return a Boolean, spelled `true` or `false`."""
        text = self.string(name)
        if text is None:
            return default
        if text not in {"true", "false"}:
            raise self.invalid(name, f"Invalid boolean: {text}")
        return text == "true"

    def choice(self, name: str, options: Collection[str], default: str | None = None) -> str | None:
        """Return a string that must be one of the options."""
        text = self.string(name, default)
        if text is not None and text not in options:
            raise self.invalid(name, f"Invalid {name}: must be one of {', '.join(sorted(options))}")
        return text

    def nested(self, name: str) -> "Params | None":
        """Return the parameters of an object inside this one; None if it is absent or to be unset."""
        value = self.raw(name)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise self.invalid(name, f"Invalid object: {name}")
        return Params(value, self.encoded_name(name))

    def nested_list(self, name: str) -> "list[Params]":
        """Return the parameters of a list of objects; empty if it is absent or to be unset."""
        return [
            Params(value, f"{self.encoded_name(name)}[{index}]")
            for index, value in enumerate(self._list(name))
            if isinstance(value, dict)
        ]

    def strings(self, name: str) -> list[str]:
        """Return a list of strings; empty if it is absent or to be unset."""
        return [value for value in self._list(name) if isinstance(value, str)]

    def _list(self, name: str) -> list[Any]:
        value = self.raw(name)
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            raise self.invalid(name, f"Invalid array: {name}")
        return value

    def metadata(self, current: dict[str, str] | None = None) -> dict[str, str]:
        """Return `current` updated with the metadata of this request.

        An empty value removes its key, an empty `metadata` removes all keys
        (docs.stripe.com/api/metadata: 50 keys, keys of 40 and values of 500 characters).
        """
        merged = dict(current or {})
        sent = self.raw("metadata")
        if sent is None:
            return merged
        if sent == "":
            return {}
        if not isinstance(sent, dict):
            raise self.invalid("metadata", "Invalid object: metadata")
        for key, value in sent.items():
            if not isinstance(value, str) or len(value) > MAX_METADATA_VALUE or len(key) > MAX_METADATA_KEY:
                raise self.invalid("metadata", f"Invalid metadata: {key}")
            if value:
                merged[key] = value
            else:
                merged.pop(key, None)
        if len(merged) > MAX_METADATA_KEYS:
            raise self.invalid("metadata", f"Metadata may have up to {MAX_METADATA_KEYS} keys.")
        return merged

    def sent_strings(self, names: Iterable[str]) -> dict[str, str | None]:
        """Return those of the named strings that were sent; None for those to be unset."""
        return {name: self.string(name) for name in names if name in self.values}

    def reject_unknown(self) -> None:
        """Refuse parameters that no reader has read; call this before any change.

        Raises:
            StripeApiError: 400 `parameter_unknown`.
        """
        for name in self.values:
            if name not in self._read:
                raise self.invalid(name, f"Received unknown parameter: {self.encoded_name(name)}", "parameter_unknown")
