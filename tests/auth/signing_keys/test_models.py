from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from services.auth.signing_keys.models import KEPT, MAX_TOKEN_LIFETIME, KeySet, KeyState, RotationPolicy, SigningKey
from shared.messages.auth.signing_keys import Algorithm

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LEAD = timedelta(minutes=15)
PERIOD = timedelta(days=90)
ROTATION = RotationPolicy("ES256", period=PERIOD, lead=LEAD)
NUMBERS = count()


def make(algorithm: Algorithm = "ES256") -> SigningKey:
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


def states(ring: KeySet) -> list[str]:
    return [key.state.value for key in ring.keys]


def test_the_first_key_signs_at_once() -> None:
    ring = KeySet.begin(make())
    assert states(ring) == ["active"]
    assert ring.next_due(ROTATION) == NOW + PERIOD


def test_a_key_is_published_before_it_signs_and_verifies_after_it_was_retired() -> None:
    first = KeySet.begin(make())
    at = NOW + timedelta(days=1)
    waiting = first.rotate(ROTATION, make, at=at)
    assert states(waiting) == ["active", "published"]
    assert waiting.active == first.active
    assert waiting.next_due(ROTATION) == at + LEAD
    assert waiting.keep(ROTATION, make, at=at + LEAD - timedelta(milliseconds=1)) == waiting

    at += LEAD
    rotated = waiting.keep(ROTATION, make, at=at)
    assert states(rotated) == ["retired", "active"]
    assert rotated.active.signs_from == at
    assert rotated.next_due(ROTATION) == at + KEPT
    assert rotated.keep(ROTATION, make, at=at + KEPT - timedelta(milliseconds=1)) == rotated

    alone = rotated.keep(ROTATION, make, at=at + KEPT)
    assert states(alone) == ["active"]
    assert alone.next_due(ROTATION) == at + PERIOD


def test_a_retired_key_outlives_whatever_it_signed_and_has_no_private_half() -> None:
    ring = KeySet.begin(make()).rotate(ROTATION, make, at=NOW).keep(ROTATION, make, at=NOW + LEAD)
    old = ring.keys[0]
    assert old.verifies_until is not None
    assert old.verifies_until > NOW + LEAD + MAX_TOKEN_LIFETIME
    assert old.sealed_private is None


def test_a_second_order_changes_nothing_while_a_successor_waits() -> None:
    ring = KeySet.begin(make()).rotate(ROTATION, make, at=NOW)
    assert ring.rotate(ROTATION, make, at=NOW + LEAD / 2) == ring


def test_a_key_that_has_signed_for_its_period_gets_a_successor() -> None:
    ring = KeySet.begin(make())
    assert ring.keep(ROTATION, make, at=NOW + PERIOD - timedelta(milliseconds=1)) == ring
    assert states(ring.keep(ROTATION, make, at=NOW + PERIOD)) == ["active", "published"]


def test_after_a_leak_one_new_key_signs_and_no_other_is_kept() -> None:
    ring = KeySet.begin(make()).rotate(ROTATION, make, at=NOW).keep(ROTATION, make, at=NOW + LEAD)
    ring = ring.rotate(ROTATION, make, at=NOW + LEAD)
    assert states(ring) == ["retired", "active", "published"]
    at = NOW + 2 * LEAD
    replaced = ring.replace_all(make(), at=at)
    assert states(replaced) == ["retired", "retired", "retired", "active"]
    assert not any(key.sealed_private for key in replaced.keys[:-1])
    assert replaced.next_due(ROTATION) <= at
    assert states(replaced.keep(ROTATION, make, at=at)) == ["active"]


def test_another_algorithm_follows_as_in_any_rotation() -> None:
    other = RotationPolicy("EdDSA", period=PERIOD, lead=LEAD)
    ring = KeySet.begin(make()).keep(other, make, at=NOW)
    assert [(key.algorithm, key.state) for key in ring.keys] == [("ES256", "active"), ("EdDSA", "published")]
    ring = ring.keep(other, make, at=NOW + LEAD)
    assert [(key.algorithm, key.state) for key in ring.keys] == [("ES256", "retired"), ("EdDSA", "active")]
    assert states(ring.keep(other, make, at=NOW + LEAD + KEPT)) == ["active"]


def test_an_algorithm_that_was_wanted_for_a_while_never_signs() -> None:
    first = KeySet.begin(make())
    ring = first.keep(RotationPolicy("EdDSA", period=PERIOD, lead=LEAD), make, at=NOW)
    assert ring.keep(ROTATION, make, at=NOW + timedelta(seconds=1)) == first
    third = RotationPolicy("ES512", period=PERIOD, lead=LEAD)
    ring = ring.keep(third, make, at=NOW + timedelta(seconds=2))
    assert [(key.algorithm, key.state) for key in ring.keys] == [("ES256", "active"), ("ES512", "published")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["keep", "rotate", "leak"]),
            st.sampled_from(["ES256", "EdDSA"]),
            st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=100)),
        ),
        max_size=30,
    )
)
def test_whatever_happens_one_key_signs_and_none_before_it_was_published(
    steps: list[tuple[str, Algorithm, timedelta]],
) -> None:
    at, ring = NOW, KeySet.begin(make())
    published: dict[str, datetime] = {ring.active.id: at - LEAD}
    for step, algorithm, pause in steps:
        at += pause
        rotation = replace(ROTATION, algorithm=algorithm)
        match step:
            case "leak":
                ring = ring.replace_all(make(), at=at)
                published[ring.active.id] = at - LEAD
            case "rotate":
                ring = ring.rotate(rotation, make, at=at)
            case _:
                ring = ring.keep(rotation, make, at=at)
                assert ring.next_due(rotation) > at
                assert ring.keep(rotation, make, at=at) == ring
        for key in ring.keys:
            published.setdefault(key.id, at)
        assert len({key.id for key in ring.keys}) == len(ring.keys)
        assert states(ring).count("active") == 1
        assert states(ring).count("published") <= 1
        assert at - published[ring.active.id] >= LEAD
        for key in ring.keys:
            assert (key.sealed_private is None) == (key.verifies_until is not None) == (key.state is KeyState.RETIRED)
