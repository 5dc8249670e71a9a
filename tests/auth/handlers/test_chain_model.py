"""A chain of refresh tokens beside a model of it: whatever is done in whatever order, both answer alike."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.auth.flows import logged_in, refresh, refusal
from tests.desk import Desk

GRACE = timedelta(seconds=30)
UNUSED = timedelta(days=60)
WAITS = st.sampled_from([timedelta(seconds=10), GRACE, timedelta(hours=2), timedelta(days=45)])


@dataclass
class Model:
    """What the API page says of refresh tokens, by their place in the chain."""

    born: list[datetime]
    used: list[datetime | None] = field(default_factory=lambda: [None])
    ended: bool = False

    def refresh(self, place: int, now: datetime) -> int | str:
        """The place of the token that is given in exchange, or the code of the refusal."""
        newest = len(self.used) - 1
        used = self.used[place]
        if used is None:
            if self.ended:
                return "authorization_not_found"
            if now >= self.born[place] + UNUSED:
                return "token_expired"
            self.used[place] = now
            self.used.append(None)
            self.born.append(now)
            return place + 1
        if not self.ended and place + 1 == newest and now - used <= GRACE:
            return newest
        self.ended = True
        return "token_used"


# How far back from the newest token; or how long nothing happens.
STEPS = st.lists(st.integers(0, 3) | WAITS, max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@example(steps=[0, 1, 0, 2, 1, 0])
@example(steps=[0, GRACE, 1, timedelta(seconds=10), 1, 0])
async def test_a_chain_answers_as_its_model(desk: Desk, steps: list[int | timedelta]) -> None:
    texts = [(await logged_in(desk))["refresh_token"]]
    model = Model(born=[desk.now])
    for step in steps:
        if isinstance(step, timedelta):
            desk.now += step
            continue
        place = max(0, len(model.used) - 1 - step)
        expected = model.refresh(place, desk.now)
        command = refresh(texts[place])
        if isinstance(expected, str):
            assert (await refusal(desk, command))[1] == expected
            continue
        answer = await desk.perform(command)
        if expected == len(texts):
            texts.append(answer["refresh_token"])
        assert answer["refresh_token"] == texts[expected]
    live = await desk.database["refresh_tokens"].count_documents({"revokedAt": None, "usedAt": None})
    assert live == (0 if model.ended else 1)
    # The next example finds an empty house.
    for name in ("authorizations", "access_tokens", "refresh_tokens", "inbox"):
        await desk.database[name].delete_many({})
