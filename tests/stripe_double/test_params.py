from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe._encode import _api_encode

from services.stripe_double import StripeApiError
from services.stripe_double.params import Params, decode

names = st.from_regex(r"[a-z_]{1,10}", fullmatch=True)
leaves = st.text(st.characters(codec="utf-8"), max_size=20)
trees = st.dictionaries(
    names,
    st.recursive(
        leaves,
        lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3) | st.lists(inner, min_size=1, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(child) for child in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(child) for child in value), default=0)
    return 0


@given(trees.filter(lambda tree: depth(tree) <= 8))
def test_decode_inverts_the_encoding_of_stripe_python(tree: dict[str, Any]) -> None:
    assert decode(urlencode(list(_api_encode(tree))).encode()) == tree


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(encoded: bytes) -> None:
    with suppress(StripeApiError):
        assert isinstance(decode(encoded), dict)


def test_metadata_keys_that_are_numbers_stay_keys() -> None:
    assert decode(b"metadata[0]=a&metadata[7]=b") == {"metadata": {"0": "a", "7": "b"}}


def test_a_list_without_indexes_is_a_list() -> None:
    assert decode(b"expand[]=customer&expand[]=items") == {"expand": ["customer", "items"]}


def test_nesting_deeper_than_eight_levels_is_refused() -> None:
    with pytest.raises(StripeApiError):
        decode(b"a" + b"[a]" * 8 + b"=1")


def test_a_parameter_that_was_not_read_is_unknown() -> None:
    params = Params({"email": "ada@example.com", "nonsense": "1"})
    params.string("email")
    with pytest.raises(StripeApiError) as caught:
        params.reject_unknown()
    assert (caught.value.code, caught.value.param) == ("parameter_unknown", "nonsense")


def test_an_error_names_a_nested_parameter_in_form_encoding() -> None:
    item = Params(decode(b"items[0][quantity]=many")).nested_list("items")[0]
    with pytest.raises(StripeApiError) as caught:
        item.integer("quantity")
    assert caught.value.param == "items[0][quantity]"


def test_empty_metadata_values_remove_keys() -> None:
    assert Params({"metadata": {"a": "", "b": "2"}}).metadata({"a": "1", "c": "3"}) == {"b": "2", "c": "3"}
    assert Params({"metadata": ""}).metadata({"a": "1"}) == {}


@pytest.mark.parametrize(
    "metadata", [{"k" * 41: "v"}, {"k": "v" * 501}, {str(n): "v" for n in range(51)}, "text", ["list"]]
)
def test_metadata_beyond_stripes_limits_is_refused(metadata: Any) -> None:
    with pytest.raises(StripeApiError):
        Params({"metadata": metadata}).metadata()


@pytest.mark.parametrize(
    ("read", "value"),
    [("integer", "1.5"), ("integer", "x"), ("boolean", "yes"), ("decimal", "much"), ("required", ""), ("nested", "x")],
)
def test_values_of_another_type_are_refused(read: str, value: str) -> None:
    with pytest.raises(StripeApiError) as caught:
        getattr(Params({"it": value}), read)("it")
    assert caught.value.param == "it"
