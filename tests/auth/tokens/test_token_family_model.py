"""State-machine test of sessions against a reference model: random, concurrent and repeated commands.

Two instances of auth share a database, and their clocks differ by up to 30 seconds. Concurrent commands must have the
result of some sequential order: one in which the model gives the same replies and reaches the same state.
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

from services.auth.clients.store import RECENT_SECONDS
from services.auth.tokens.credentials import hash_key
from services.auth.tokens.models import ACCESS_TOKEN_LIFETIME
from shared.messages import Caller, Message
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.sessions import RevokeSessions, SessionRevoked
from shared.messages.auth.tokens import AccessTokenRevoked, RefreshTokenReused
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import CLIENT, OTHER_CLIENT, REDIRECT_URI, log_in, redeliverable, refresh
from tests.auth.tokens.token_family_model import GRACE_PERIOD, Family, Model, Stored, StoredFamily
from tests.service_harness import Refused, ServiceHarness

MAX_FAMILIES = 4
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(frozen=True)
class Refresh:
    """Use of a refresh token, ``back`` positions before the newest of its family."""

    family: int
    back: int
    correct_client: bool


@dataclass(frozen=True)
class Revoke:
    """Revocation of sessions, relative to one of them."""

    family: int
    which: str


NUMBERS = st.integers(0, MAX_FAMILIES - 1)
REFRESHES = st.builds(Refresh, NUMBERS, st.just(0), st.just(True))
REPLAYS = st.builds(Refresh, NUMBERS, st.sampled_from([1, 1, 2, 3]), st.sampled_from([True, True, True, False]))
WRONG_CLIENTS = st.builds(Refresh, NUMBERS, st.just(0), st.just(False))
REVOCATIONS = st.builds(Revoke, NUMBERS, st.sampled_from(["one", "others", "current", "all"]))
ACTIONS = st.one_of(REFRESHES, REFRESHES, REPLAYS, WRONG_CLIENTS, REVOCATIONS)
SECONDS = st.sampled_from([2, 10, 10, 20, 30, 3600])
DAYS = st.sampled_from([1, 45, 60, 300])


@dataclass
class Delivery:
    """One message, which may be delivered more than once.

    Attributes:
        apply: applies the message to a model.
        family: number of the family whose tokens it returns.
        instances: the instances to which it is delivered at the same time.
        arguments: arguments of ``ServiceHarness.deliver``.
        replies: the replies of the instances.
    """

    message: Message
    caller: Caller
    apply: Callable[[Model, datetime], int | str]
    family: int
    instances: list[int]
    arguments: dict[str, Any] = field(default_factory=dict)
    replies: list[Any] = field(default_factory=list)

    async def to(self, harness: ServiceHarness) -> Any:
        """Deliver the message, and return the reply, or the code of the refusal."""
        try:
            return await harness.deliver(self.message, caller=self.caller, **self.arguments)
        except Refused as refused:
            return refused.code


class Sessions(RuleBasedStateMachine):
    """One user with several devices, two apps, two instances of auth."""

    addresses: ClassVar = itertools.count()

    def __init__(self, run: Run, harnesses: list[ServiceHarness]) -> None:
        super().__init__()
        self.run = run
        self.harnesses = harnesses
        self.token_collection = harnesses[0].database["refresh_tokens"]
        self.model = Model()
        self.possible = [self.model]
        self.refresh_tokens: list[list[str]] = []
        self.callers: list[Caller] = []
        self.roots: list[str] = []
        self.done: list[Delivery] = []
        self.access_tokens: dict[str, tuple[str, datetime]] = {}
        self.revoked_access_tokens: set[str] = set()
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
        if app in self.model.disabled or len(self.model.families) == MAX_FAMILIES:
            return
        harness = self.harnesses[0]
        tokens = self.run(log_in(harness, identifier_value=self.address, client_id=app))
        token = self.run(self.token_collection.find_one({"_id": tokens["refresh_token"].split(".")[1]}))
        self.roots.append(token["rootGrant"]["value"])
        self.refresh_tokens.append([tokens["refresh_token"]])
        self.callers.append(caller_of(tokens))
        self.model.families.append(Family(app, [harness.now]))

    @rule(refresh=REFRESHES)
    def use_the_newest_token(self, refresh: Refresh) -> None:
        self.do([self.delivery(refresh, [0])])

    @rule(replay=REPLAYS)
    def use_an_older_token(self, replay: Refresh) -> None:
        self.do([self.delivery(replay, [1])])

    @rule(action=WRONG_CLIENTS | REVOCATIONS)
    def use_a_wrong_client_or_revoke_sessions(self, action: Refresh | Revoke) -> None:
        self.do([self.delivery(action, [0])])

    @rule(actions=st.lists(st.tuples(ACTIONS, st.integers(1, 3)), min_size=1, max_size=2))
    def send_commands_at_once(self, actions: list[tuple[Refresh | Revoke, int]]) -> None:
        """Each action once, or with two message IDs, or with one ID that Kafka delivers to both instances."""
        self.do(
            [
                self.delivery(action, [0, 1] if copies == 3 else [number])
                for action, copies in actions
                for number in range(2 if copies == 2 else 1)
            ]
        )

    @rule(older=st.integers(0, 4), instance=st.integers(0, 1))
    def repeat_a_message(self, older: int, instance: int) -> None:
        """A redelivery by Kafka, or a reused idempotency key: nothing happens, and the reply is the first one."""
        if self.done:
            delivery = self.done[-1 - older % len(self.done)]
            assert self.run(delivery.to(self.harnesses[instance])) == delivery.replies[0]

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
    def stored_state_equals_the_model(self) -> None:
        if not self.roots:
            return
        stored = self.run(self.stored())
        models = [model for model in self.possible if model.stored() == stored]
        assert models, f"{stored} is not among {[model.stored() for model in self.possible]}"
        self.model = models[0]
        self.possible = [self.model]

    def do(self, deliveries: list[Delivery]) -> None:
        """Deliver all of them at once, and find the sequential orders with the same replies."""
        calls = [delivery.to(self.harnesses[each]) for delivery in deliveries for each in delivery.instances]
        replies = iter(self.run(at_once(calls)))
        for delivery in deliveries:
            delivery.replies = [next(replies) for _ in delivery.instances]
            assert delivery.replies.count(delivery.replies[0]) == len(delivery.replies), "a message has one reply"
        self.done += deliveries
        actual = [self.as_in_model(delivery) for delivery in deliveries]
        self.possible = [model for expected, model in self.sequential_results(deliveries) if expected == actual]
        assert self.possible, f"no order results in {actual}"

    def delivery(self, action: Refresh | Revoke, instances: list[int]) -> Delivery:
        number = action.family % len(self.model.families)
        family = self.model.families[number]
        if isinstance(action, Refresh):
            position = max(0, len(family.used) - 1 - action.back)
            client = family.client if action.correct_client else ({CLIENT, OTHER_CLIENT} - {family.client}).pop()
            message: Message = refresh(self.refresh_tokens[number][position], client)
            delivery = Delivery(
                message, Caller(), lambda model, now: model.refresh(number, position, client, now), number, instances
            )
        else:
            session_id = self.roots[number] if action.which == "one" else None
            message = RevokeSessions(
                user_id=str(self.callers[0].user_id),
                session_id=session_id,
                which=None if session_id else action.which,  # type: ignore[arg-type]
            )
            delivery = Delivery(
                message,
                self.callers[number],
                lambda model, now: model.revoke(number, action.which, now),
                number,
                instances,
            )
        delivery.arguments = redeliverable(self.harnesses[0], message)
        return delivery

    def as_in_model(self, delivery: Delivery) -> int | str:
        """The reply in the form of the model."""
        reply = delivery.replies[0]
        if isinstance(reply, str):
            return reply
        if "ended" in reply:
            ended: int = reply["ended"]
            return ended
        family = self.refresh_tokens[delivery.family]
        if reply["refresh_token"] not in family:
            family.append(reply["refresh_token"])
        self.callers[delivery.family] = caller_of(reply)
        return family.index(reply["refresh_token"])

    def sequential_results(self, deliveries: list[Delivery]) -> Iterator[tuple[list[int | str], Model]]:
        """Replies and state of the model for each order in which the messages may have been handled."""
        for instances in itertools.product(*(delivery.instances for delivery in deliveries)):
            for order in itertools.permutations(range(len(deliveries))):
                model = copy.deepcopy(self.model)
                replies = {each: deliveries[each].apply(model, self.harnesses[instances[each]].now) for each in order}
                yield [replies[number] for number in range(len(deliveries))], model

    async def stored(self) -> Stored:
        """What the database and the published events say, in the form of the model."""
        of_user = {"userId": self.callers[0].user_id}
        tokens = {token["_id"]: token for token in await self.token_collection.find(of_user).to_list()}
        families = []
        for strings, root in zip(self.refresh_tokens, self.roots, strict=True):
            [token_id] = {string.split(".")[1] for string in strings}
            token = tokens.pop(token_id)
            assert token["rootGrant"]["value"] == root
            keys = [hash_key(string.split(".")[2]) for string in strings]
            position = keys.index(token["key"])
            assert token["previousKey"] == (keys[position - 1] if position else None)
            self.note_revoked_access_tokens(root, token)
            issued, renewed = token["createdAt"], token["accessTokenExpiresAt"] - ACCESS_TOKEN_LIFETIME
            families.append(
                StoredFamily(
                    client=token["clientId"],
                    began=token["chainBeganAt"],
                    position=position,
                    issued=issued,
                    renewed=renewed if renewed != issued else None,
                    revoked=token["revokedAt"] is not None,
                )
            )
        assert tokens == {}
        published_of = self.harnesses[0].published_of
        thefts = len(published_of(RefreshTokenReused))
        assert len([mail for mail in published_of(SendMail) if mail.template == "session-theft"]) == thefts
        assert {event.token_id for event in published_of(AccessTokenRevoked)} == self.revoked_access_tokens
        return Stored(tuple(families), thefts, len(published_of(SessionRevoked)))

    def note_revoked_access_tokens(self, root: str, token: dict[str, Any]) -> None:
        """Note which access tokens of a family have to be announced as revoked, since they had not expired."""
        newest, expires_at = token["accessTokenId"], token["accessTokenExpiresAt"]
        older, older_expires_at = self.access_tokens.get(root, (newest, expires_at))
        if token["previousAccessTokenId"] not in {None, older} and older != newest:
            # Renewed once the older one had expired, and replaced at once by the exchange of its refresh token.
            self.revoked_access_tokens.add(token["previousAccessTokenId"])
        elif older != newest and expires_at - ACCESS_TOKEN_LIFETIME < older_expires_at:
            self.revoked_access_tokens.add(older)
        if token["revokedAt"] is not None and token["revokedAt"] < expires_at:
            self.revoked_access_tokens.add(newest)
        self.access_tokens[root] = (newest, expires_at)


def caller_of(tokens: dict[str, Any]) -> Caller:
    """The caller that the gateway derives from an access token."""
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return Caller(kind="user", user_id=claims["sub"], token_id=claims["jti"])


async def at_once(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*calls)


def run_machine(new_harness: Callable[..., ServiceHarness], *, examples: int, steps: int) -> None:
    """Run the state machine against two instances, while another user stays logged in."""
    with asyncio.Runner() as runner:
        harnesses = [new_harness(), new_harness()]
        for harness in harnesses:
            runner.run(harness.__aenter__())
            # Each instance reads clients anew, as if half a second passed between two steps.
            harness.context.clients._clock = itertools.count(step=RECENT_SECONDS).__next__
        # Both instances share the list of published messages, in which repeated IDs are left out.
        harnesses[1].published, harnesses[1]._seen = harnesses[0].published, harnesses[0]._seen
        try:
            for client_id in (CLIENT, OTHER_CLIENT):
                runner.run(
                    harnesses[0].deliver(CreateClient(id=client_id, name="An app", redirect_uris=(REDIRECT_URI,)))
                )
            other_user = runner.run(log_in(harnesses[0], identifier_value="other@example.com", client_id=OTHER_CLIENT))
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
            runner.run(harnesses[0].deliver(refresh(other_user["refresh_token"], OTHER_CLIENT)))
        finally:
            for harness in harnesses:
                runner.run(harness.__aexit__())


def test_sessions_agree_with_the_model(new_harness: Callable[..., ServiceHarness]) -> None:
    run_machine(new_harness, examples=12, steps=20)


@pytest.mark.slow
def test_sessions_agree_with_the_model_in_long_runs(new_harness: Callable[..., ServiceHarness]) -> None:
    run_machine(new_harness, examples=400, steps=40)
