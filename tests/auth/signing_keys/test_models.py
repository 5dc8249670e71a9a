from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from services.auth.signing_keys.models import (
    MAX_TOKEN_LIFETIME,
    RETIREMENT,
    KeySet,
    KeyState,
    RotationPolicy,
    SigningKey,
)
from shared.messages.auth.signing_keys import Algorithm

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LEAD = timedelta(minutes=15)
PERIOD = timedelta(days=90)
POLICY = RotationPolicy("ES256", period=PERIOD, lead=LEAD)
NUMBERS = count()


def generate(algorithm: Algorithm = "ES256") -> SigningKey:
    name = f"key-{next(NUMBERS)}"
    return SigningKey(
        id=name,
        algorithm=algorithm,
        state=KeyState.PUBLISHED,
        public_jwk={},
        sealed_private="sealed",
        created_at=NOW,
        signs_from=NOW,
    )


def states(key_set: KeySet) -> list[str]:
    return [key.state.value for key in key_set.keys]


def test_first_key_signs_at_once() -> None:
    key_set = KeySet.begin(generate())
    assert states(key_set) == ["active"]
    assert key_set.next_due(POLICY) == NOW + PERIOD


def test_key_is_published_before_it_signs_and_verifies_afterwards() -> None:
    first = KeySet.begin(generate())
    at = NOW + timedelta(days=1)
    waiting = first.rotate(POLICY, generate, at=at)
    assert states(waiting) == ["active", "published"]
    assert waiting.active == first.active
    assert waiting.next_due(POLICY) == at + LEAD
    assert waiting.advance(POLICY, generate, at=at + LEAD - timedelta(milliseconds=1)) == waiting

    at += LEAD
    rotated = waiting.advance(POLICY, generate, at=at)
    assert states(rotated) == ["retired", "active"]
    assert rotated.active.signs_from == at
    assert rotated.next_due(POLICY) == at + RETIREMENT
    assert rotated.advance(POLICY, generate, at=at + RETIREMENT - timedelta(milliseconds=1)) == rotated

    alone = rotated.advance(POLICY, generate, at=at + RETIREMENT)
    assert states(alone) == ["active"]
    assert alone.next_due(POLICY) == at + PERIOD


def test_retired_key_outlives_its_tokens_without_private_key() -> None:
    key_set = KeySet.begin(generate()).rotate(POLICY, generate, at=NOW).advance(POLICY, generate, at=NOW + LEAD)
    old = key_set.keys[0]
    assert old.verifies_until is not None
    assert old.verifies_until > NOW + LEAD + MAX_TOKEN_LIFETIME
    assert old.sealed_private is None


def test_second_rotation_changes_nothing_while_a_key_is_published() -> None:
    key_set = KeySet.begin(generate()).rotate(POLICY, generate, at=NOW)
    assert key_set.rotate(POLICY, generate, at=NOW + LEAD / 2) == key_set


def test_key_gets_a_successor_after_its_period() -> None:
    key_set = KeySet.begin(generate())
    assert key_set.advance(POLICY, generate, at=NOW + PERIOD - timedelta(milliseconds=1)) == key_set
    assert states(key_set.advance(POLICY, generate, at=NOW + PERIOD)) == ["active", "published"]


def test_replace_all_leaves_one_new_active_key() -> None:
    key_set = KeySet.begin(generate()).rotate(POLICY, generate, at=NOW).advance(POLICY, generate, at=NOW + LEAD)
    key_set = key_set.rotate(POLICY, generate, at=NOW + LEAD)
    assert states(key_set) == ["retired", "active", "published"]
    at = NOW + 2 * LEAD
    replaced = key_set.replace_all(generate(), at=at)
    assert states(replaced) == ["retired", "retired", "retired", "active"]
    assert not any(key.sealed_private for key in replaced.keys[:-1])
    assert replaced.next_due(POLICY) <= at
    assert states(replaced.advance(POLICY, generate, at=at)) == ["active"]


def test_new_algorithm_takes_over_as_in_any_rotation() -> None:
    other = RotationPolicy("EdDSA", period=PERIOD, lead=LEAD)
    key_set = KeySet.begin(generate()).advance(other, generate, at=NOW)
    assert [(key.algorithm, key.state) for key in key_set.keys] == [("ES256", "active"), ("EdDSA", "published")]
    key_set = key_set.advance(other, generate, at=NOW + LEAD)
    assert [(key.algorithm, key.state) for key in key_set.keys] == [("ES256", "retired"), ("EdDSA", "active")]
    assert states(key_set.advance(other, generate, at=NOW + LEAD + RETIREMENT)) == ["active"]


def test_published_key_of_a_reverted_algorithm_never_signs() -> None:
    first = KeySet.begin(generate())
    key_set = first.advance(RotationPolicy("EdDSA", period=PERIOD, lead=LEAD), generate, at=NOW)
    assert key_set.advance(POLICY, generate, at=NOW + timedelta(seconds=1)) == first
    third = RotationPolicy("ES512", period=PERIOD, lead=LEAD)
    key_set = key_set.advance(third, generate, at=NOW + timedelta(seconds=2))
    assert [(key.algorithm, key.state) for key in key_set.keys] == [("ES256", "active"), ("ES512", "published")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["advance", "rotate", "replace"]),
            st.sampled_from(["ES256", "EdDSA"]),
            st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=100)),
        ),
        max_size=30,
    )
)
def test_one_key_is_active_and_none_before_its_lead_time(
    steps: list[tuple[str, Algorithm, timedelta]],
) -> None:
    at, key_set = NOW, KeySet.begin(generate())
    published: dict[str, datetime] = {key_set.active.id: at - LEAD}
    for step, algorithm, pause in steps:
        at += pause
        policy = replace(POLICY, algorithm=algorithm)
        match step:
            case "replace":
                key_set = key_set.replace_all(generate(), at=at)
                published[key_set.active.id] = at - LEAD
            case "rotate":
                key_set = key_set.rotate(policy, generate, at=at)
            case _:
                key_set = key_set.advance(policy, generate, at=at)
                assert key_set.next_due(policy) > at
                assert key_set.advance(policy, generate, at=at) == key_set
        for key in key_set.keys:
            published.setdefault(key.id, at)
        assert len({key.id for key in key_set.keys}) == len(key_set.keys)
        assert states(key_set).count("active") == 1
        assert states(key_set).count("published") <= 1
        assert at - published[key_set.active.id] >= LEAD
        for key in key_set.keys:
            assert (key.sealed_private is None) == (key.verifies_until is not None) == (key.state is KeyState.RETIRED)
