"""Sessions beside a model of them: whatever is done, in whatever order, at once or again, both answer alike.

Two instances of auth share the database, and their clocks may differ by seconds. What is done at once must have had
some order: one in which the model gives the same answers and comes to the same state.
"""

import asyncio
import copy
import itertools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import jwt
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shared.messages import Caller, Message
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.sessions import RevokeSessions, SessionRevoked
from shared.messages.auth.tokens import AccessTokenRevoked, RefreshTokenReused
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import CLIENT, OTHER_CLIENT, REDIRECT_URI, logged_in, one_delivery, refresh
from tests.auth.tokens.token_family_model import GRACE_PERIOD, Model, TokenFamily
from tests.service_harness import Refused, ServiceHarness

MOST_CHAINS = 4
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Refresh:
    """Show a refresh token: so many places before the newest of its chain."""

    chain: int
    back: int
    right_client: bool


@dataclass(frozen=True)
class Revoke:
    """End sessions, as seen from one of them."""

    chain: int
    which: str


NUMBERS = st.integers(0, MOST_CHAINS - 1)
REFRESHES = st.builds(Refresh, NUMBERS, st.just(0), st.just(True))
REPLAYS = st.builds(Refresh, NUMBERS, st.sampled_from([1, 1, 2, 3]), st.sampled_from([True, True, True, False]))
STRANGERS = st.builds(Refresh, NUMBERS, st.just(0), st.just(False))
REVOCATIONS = st.builds(Revoke, NUMBERS, st.sampled_from(["one", "others", "current", "all"]))
ACTIONS = st.one_of(REFRESHES, REFRESHES, REPLAYS, STRANGERS, REVOCATIONS)
SECONDS = st.sampled_from([2, 10, 10, 20, 30, 3600])
DAYS = st.sampled_from([1, 45, 60, 300])


@dataclass
class Order:
    """One message, as it may come more than once.

    Attributes:
        apply: does the same to a model, at a time.
        chain: which chain's tokens it answers with.
        instances: where it goes, at once.
        answers: what came back.
    """

    message: Message
    caller: Caller
    apply: Callable[[Model, datetime], int | str]
    chain: int
    instances: list[int]
    delivery: dict[str, Any] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)

    async def to(self, harness: ServiceHarness) -> Any:
        """The tokens or the count of ended sessions that are answered, or the code of the refusal."""
        try:
            return await harness.deliver(self.message, caller=self.caller, **self.delivery)
        except Refused as refused:
            return refused.code


class Sessions(RuleBasedStateMachine):
    """One user, some devices, two apps, two instances."""

    addresses: ClassVar = itertools.count()

    def __init__(self, run: Run, harnesses: list[ServiceHarness]) -> None:
        super().__init__()
        self.run = run
        self.harnesses = harnesses
        self.tokens = harnesses[0].database["refresh_tokens"]
        self.model = Model()
        self.possible = [self.model]
        self.texts: list[list[str]] = []
        self.callers: list[Caller] = []
        self.roots: list[str] = []
        self.done: list[Order] = []
        self.address = f"ana{next(self.addresses)}@example.com"
        for harness in harnesses:
            harness.now = datetime.now(UTC).replace(microsecond=0)
            harness.clear()

    @initialize(apps=st.lists(st.sampled_from([CLIENT, OTHER_CLIENT]), min_size=1, max_size=3))
    def begin(self, apps: list[str]) -> None:
        self.run(self.harnesses[0].database["clients"].update_many({}, {"$set": {"disabledAt": None}}))
        for app in apps:
            self.log_in(app)

    @rule(app=st.sampled_from([CLIENT, OTHER_CLIENT]))
    def log_in(self, app: str) -> None:
        if app in self.model.disabled or len(self.model.chains) == MOST_CHAINS:
            return
        harness = self.harnesses[0]
        answer = self.run(logged_in(harness, identifier_value=self.address, client_id=app))
        token = self.run(self.tokens.find_one({"_id": answer["refresh_token"].split(".")[1]}))
        self.roots.append(token["rootGrant"])
        self.texts.append([answer["refresh_token"]])
        self.callers.append(caller_of(answer))
        self.model.chains.append(TokenFamily(app, [harness.now]))

    @rule(refresh=REFRESHES)
    def use_the_newest_token(self, refresh: Refresh) -> None:
        self.do([self.order(refresh, [0])])

    @rule(replay=REPLAYS)
    def use_an_older_token(self, replay: Refresh) -> None:
        self.do([self.order(replay, [1])])

    @rule(action=STRANGERS | REVOCATIONS)
    def use_it_with_another_app_or_end_sessions(self, action: Refresh | Revoke) -> None:
        self.do([self.order(action, [0])])

    @rule(wanted=st.lists(st.tuples(ACTIONS, st.integers(1, 3)), min_size=1, max_size=2))
    def do_much_at_once(self, wanted: list[tuple[Refresh | Revoke, int]]) -> None:
        """Each action once, or under two ids, or under one id that Kafka gives to both instances."""
        self.do(
            [
                self.order(action, [0, 1] if copies == 3 else [number])
                for action, copies in wanted
                for number in range(2 if copies == 2 else 1)
            ]
        )

    @rule(older=st.integers(0, 4), instance=st.integers(0, 1))
    def repeat_a_message(self, older: int, instance: int) -> None:
        """As Kafka or an idempotency key does: nothing happens, and the answer is the old one."""
        if self.done:
            order = self.done[-1 - older % len(self.done)]
            assert self.run(order.to(self.harnesses[instance])) == order.answers[0]

    @rule(seconds=SECONDS)
    def wait_seconds(self, seconds: int) -> None:
        for harness in self.harnesses:
            harness.now += timedelta(seconds=seconds)

    @rule(days=DAYS)
    def wait_days(self, days: int) -> None:
        for harness in self.harnesses:
            harness.now += timedelta(days=days)

    @rule(step=st.sampled_from([-10, -2, 2, 10]))
    def step_one_clock(self, step: int) -> None:
        if abs(self.harnesses[1].now + timedelta(seconds=step) - self.harnesses[0].now) < GRACE_PERIOD:
            self.harnesses[1].now += timedelta(seconds=step)

    @rule()
    def disable_or_enable_an_app(self) -> None:
        self.model.disabled ^= {CLIENT}
        disabled_at = self.harnesses[0].now if self.model.disabled else None
        self.run(
            self.harnesses[0].database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": disabled_at}})
        )

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        if not self.roots:
            return
        stored = self.run(self.stored())
        assert stored in self.possible
        self.model = stored
        self.possible = [stored]

    def do(self, orders: list[Order]) -> None:
        """Deliver all of them at once, each to all of its instances, and see in which order that may have been."""
        calls = [order.to(self.harnesses[instance]) for order in orders for instance in order.instances]
        answers = iter(self.run(at_once(calls)))
        for order in orders:
            order.answers = [next(answers) for _ in order.instances]
            assert order.answers.count(order.answers[0]) == len(order.answers), "a message has one answer"
        self.done += orders
        seen = [self.seen(order) for order in orders]
        self.possible = [model for given, model in self.possible_ends(orders) if given == seen]
        assert self.possible, f"no order gives {seen}"

    def order(self, action: Refresh | Revoke, instances: list[int]) -> Order:
        number = action.chain % len(self.model.chains)
        chain = self.model.chains[number]
        if isinstance(action, Refresh):
            place = max(0, len(chain.used) - 1 - action.back)
            client = chain.client if action.right_client else ({CLIENT, OTHER_CLIENT} - {chain.client}).pop()
            message: Message = refresh(self.texts[number][place], client)
            order = Order(
                message, Caller(), lambda model, now: model.refresh(number, place, client, now), number, instances
            )
        else:
            session_id = self.roots[number] if action.which == "one" else None
            message = RevokeSessions(
                user_id=str(self.callers[0].user_id),
                session_id=session_id,
                which=None if session_id else action.which,  # type: ignore[arg-type]
            )
            order = Order(
                message,
                self.callers[number],
                lambda model, now: model.revoke(number, action.which, now),
                number,
                instances,
            )
        order.delivery = one_delivery(self.harnesses[0], message)
        return order

    def seen(self, order: Order) -> int | str:
        """An answer as the model gives it."""
        answer = order.answers[0]
        if isinstance(answer, str):
            return answer
        if "ended" in answer:
            ended: int = answer["ended"]
            return ended
        texts = self.texts[order.chain]
        if answer["refresh_token"] not in texts:
            texts.append(answer["refresh_token"])
            self.callers[order.chain] = caller_of(answer)
        return texts.index(answer["refresh_token"])

    def possible_ends(self, orders: list[Order]) -> Iterator[tuple[list[int | str], Model]]:
        """What the model answers, and comes to, for each order in which the messages may have been handled."""
        for places in itertools.product(*(order.instances for order in orders)):
            for turns in itertools.permutations(range(len(orders))):
                model = copy.deepcopy(self.model)
                given = {turn: orders[turn].apply(model, self.harnesses[places[turn]].now) for turn in turns}
                yield [given[number] for number in range(len(orders))], model

    async def stored(self) -> Model:
        """The model that the database and the announcements amount to."""
        of_user = {"userId": self.callers[0].user_id}
        refresh_tokens = {token["_id"]: token for token in await self.tokens.find(of_user).to_list()}
        access_tokens = await self.harnesses[0].database["access_tokens"].find(of_user).to_list()
        model = Model(disabled=self.model.disabled)
        for texts, root in zip(self.texts, self.roots, strict=True):
            token = refresh_tokens[texts[0].split(".")[1]]
            chain = TokenFamily(token["clientId"], [], [])
            while token is not None:
                assert (token["rootGrant"], token["clientId"]) == (root, chain.client)
                assert token["revokedAt"] is not None or token["usedAt"] is None
                chain.born.append(token["createdAt"])
                chain.used.append(token["usedAt"])
                chain.ended = token["revokedAt"] is not None
                token = token["successor"] and refresh_tokens[token["successor"]["id"]]
            model.chains.append(chain)
        assert len(refresh_tokens) == len(access_tokens) == sum(len(chain.used) for chain in model.chains)
        # One live access token for each chain that goes on, and none for any other.
        going_on = [root for root, chain in zip(self.roots, model.chains, strict=True) if not chain.ended]
        assert sorted(token["rootGrant"] for token in access_tokens if token["revokedAt"] is None) == sorted(going_on)
        said = self.harnesses[0].published_of
        revoked = {token["_id"]: token for token in access_tokens if token["revokedAt"] is not None}
        assert {event.token_id for event in said(AccessTokenRevoked)} == {
            token_id for token_id, token in revoked.items() if token["revokedAt"] < token["expiresAt"]
        }
        model.thefts, model.ends = len(said(RefreshTokenReused)), len(said(SessionRevoked))
        assert len([mail for mail in said(SendMail) if mail.template == "session-theft"]) == model.thefts
        return model


def caller_of(tokens: dict[str, Any]) -> Caller:
    """Whom the gateway makes of an access token."""
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return Caller(kind="user", user_id=claims["sub"], token_id=claims["jti"])


async def at_once(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*calls)


def play(new_harness: Callable[..., ServiceHarness], *, examples: int, steps: int) -> None:
    """Let the machine play against two instances; somebody else is logged in all the while."""
    with asyncio.Runner() as runner:
        harnesses = [new_harness(), new_harness()]
        for harness in harnesses:
            runner.run(harness.__aenter__())
        # What both say is kept once, whichever of them repeats it.
        harnesses[1].published, harnesses[1]._seen = harnesses[0].published, harnesses[0]._seen
        try:
            for client_id in (CLIENT, OTHER_CLIENT):
                runner.run(
                    harnesses[0].deliver(CreateClient(id=client_id, name="An app", redirect_uris=(REDIRECT_URI,)))
                )
            somebody = runner.run(
                logged_in(harnesses[0], identifier_value="somebody@example.com", client_id=OTHER_CLIENT)
            )
            run_state_machine_as_test(
                lambda: Sessions(runner.run, harnesses),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    phases=set(Phase) - {Phase.explain},
                ),
            )
            harnesses[0].now = datetime.now(UTC)
            runner.run(harnesses[0].deliver(refresh(somebody["refresh_token"], OTHER_CLIENT)))
        finally:
            for harness in harnesses:
                runner.run(harness.__aexit__())


def test_sessions_are_as_their_model(new_harness: Callable[..., ServiceHarness]) -> None:
    play(new_harness, examples=40, steps=20)


@pytest.mark.slow
def test_sessions_are_as_their_model_for_longer(new_harness: Callable[..., ServiceHarness]) -> None:
    play(new_harness, examples=400, steps=40)
