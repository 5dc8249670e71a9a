"""How do other processes work the double's switches? Routes below `/_double/`, JSON in and out."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import parse_qs

from services.stripe_double.account import Json
from services.stripe_double.app import Call, Receive, Scope, Send, read, refused, reply, secret_key
from services.stripe_double.clock import Clock
from services.stripe_double.errors import StripeApiError
from services.stripe_double.faults import Faults
from services.stripe_double.idempotency import Answer
from services.stripe_double.simulation import Simulation
from services.stripe_double.webhooks import Attempt, DeliveryFaults, Webhooks

Body = dict[str, Any]


class Worked(Protocol):
    """The double, as far as its switches go."""

    clock: Clock
    faults: Faults
    webhooks: Webhooks
    simulate: Simulation

    @property
    def log(self) -> list[Call]:
        """The calls made."""

    @property
    def deliveries(self) -> list[Attempt]:
        """The tries to deliver an event."""

    def objects(self, kind: str) -> list[Json]:
        """Returns all objects of a kind."""

    def outage(self) -> AbstractAsyncContextManager[None]:
        """Inside the block the port refuses connections."""


class Control:
    """The switches over HTTP; they ask for the secret key like the API.

    | call | does |
    |---|---|
    | `GET objects?kind=subscription` | all objects of a kind |
    | `GET log`, `GET deliveries` | calls made, deliveries tried |
    | `GET clock` | `{"now": Unix seconds}` |
    | `POST clock` | `{"advance": seconds}` or `{"to": Unix seconds}` |
    | `POST faults`, `DELETE faults` | switch one on (the arguments of `Faults.add`), all off |
    | `POST outage` | `{"seconds": 2}`: the port refuses connections for so long |
    | `POST webhooks` | `url`, `secrets`, `thin`, and the members of `DeliveryFaults`, each optional |
    | `POST webhooks/hold`, `webhooks/release` | keep deliveries back, deliver them (`order`: event ids) |
    | `POST webhooks/resend` | `{"event": id}` |
    | `POST webhooks/drain` | `{"seconds": 10}`: answers when nothing waits; 504 otherwise |
    | `POST simulate/<verb>` | a verb of `Simulation` with its arguments by name |

    Args:
        double: What is worked.
        api_keys: The keys that open it.
    """

    def __init__(self, double: Worked, api_keys: Sequence[str]) -> None:
        self._double = double
        self._api_keys = tuple(api_keys)
        self._outages: set[asyncio.Task[None]] = set()
        self._routes: dict[str, Callable[[Body], Awaitable[Any]]] = {
            "GET objects": self._objects,
            "GET log": self._log,
            "GET deliveries": self._deliveries,
            "GET clock": self._clock,
            "POST clock": self._advance,
            "POST faults": self._fault,
            "DELETE faults": self._no_faults,
            "POST outage": self._outage,
            "POST webhooks": self._webhooks,
            "POST webhooks/hold": self._hold,
            "POST webhooks/release": self._release,
            "POST webhooks/resend": self._resend,
            "POST webhooks/drain": self._drain,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call: 200 with JSON, 400 for what doesn't fit, 401, 404 or 504."""
        encoded = await read(receive)
        try:
            self._authorize(scope)
            body: Body = json.loads(encoded) if encoded else {}
            body |= {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
            result = await self._handled(scope["method"], scope["path"].removeprefix("/_double/"), body)
            answer = Answer(200, json.dumps(result, default=str).encode())
        except StripeApiError as refusal:
            answer = refused(refusal)
        except TimeoutError:
            answer = refused(StripeApiError("Something still waits to be delivered.", status=504, type="api_error"))
        except (KeyError, TypeError, ValueError) as error:
            answer = refused(StripeApiError(f"{type(error).__name__}: {error}"))
        await reply(send, answer, {})

    def _authorize(self, scope: Scope) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        # Without a key any page that a browser here shows could work the switches.
        if secret_key(given) not in self._api_keys:
            raise StripeApiError("The switches are opened by the secret key, as Bearer.", status=401)

    async def _handled(self, method: str, path: str, body: Body) -> Any:
        if method == "POST" and path.startswith("simulate/"):
            verb = path.removeprefix("simulate/")
            play = None if verb.startswith("_") else getattr(self._double.simulate, verb, None)
            if play is not None:
                return play(**body)
        route = self._routes.get(f"{method} {path}")
        if route is None:
            raise StripeApiError(f"The double has no switch {method} /_double/{path}.", status=404)
        return await route(body)

    async def _objects(self, body: Body) -> Any:
        return self._double.objects(body["kind"])

    async def _log(self, _: Body) -> Any:
        return [asdict(call) for call in self._double.log]

    async def _deliveries(self, _: Body) -> Any:
        return [asdict(attempt) for attempt in self._double.deliveries]

    async def _clock(self, _: Body) -> Any:
        return {"now": self._double.clock.now()}

    async def _advance(self, body: Body) -> Any:
        if "to" in body:
            await self._double.clock.advance_to(datetime.fromtimestamp(body["to"], UTC))
        else:
            await self._double.clock.advance(timedelta(seconds=body["advance"]))
        return {"now": self._double.clock.now()}

    async def _fault(self, body: Body) -> Any:
        return asdict(self._double.faults.add(**body))

    async def _no_faults(self, _: Body) -> Any:
        hits = sum(fault.hits for fault in self._double.faults.active)
        self._double.faults.clear()
        return {"hits": hits}

    async def _outage(self, body: Body) -> Any:
        task = asyncio.create_task(self._gone_for(float(body["seconds"])))
        self._outages.add(task)
        task.add_done_callback(self._outages.discard)
        return {}

    async def _gone_for(self, seconds: float) -> None:
        await asyncio.sleep(0.05)  # the answer to the call that asked for it goes out first
        async with self._double.outage():
            await asyncio.sleep(seconds)

    async def _webhooks(self, body: Body) -> Any:
        webhooks = self._double.webhooks
        if "secrets" in body:
            webhooks.secrets = list(body.pop("secrets"))
        if "url" in body:
            webhooks.url = body.pop("url")
        webhooks.thin = bool(body.pop("thin", webhooks.thin))
        webhooks.faults = DeliveryFaults(**body)
        return {"url": webhooks.url, "waiting": len(webhooks.waiting)}

    async def _hold(self, _: Body) -> Any:
        self._double.webhooks.hold()
        return {}

    async def _release(self, body: Body) -> Any:
        await self._double.webhooks.release(body.get("order"))
        return {}

    async def _resend(self, body: Body) -> Any:
        self._double.webhooks.resend(body["event"])
        return {}

    async def _drain(self, body: Body) -> Any:
        await self._double.webhooks.drain(float(body.get("seconds", 10)))
        return {}
