"""HTTP control API below `/_double/`: clock, faults, deliveries and simulated actions, for other processes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import parse_qs

from services.stripe_double.account import Json
from services.stripe_double.api import (
    LoggedRequest,
    Receive,
    Scope,
    Send,
    api_key_from,
    error_response,
    read_body,
    send_response,
)
from services.stripe_double.clock import Clock
from services.stripe_double.errors import StripeApiError
from services.stripe_double.faults import DeliveryFaults, Faults
from services.stripe_double.idempotency import Response
from services.stripe_double.simulation import Simulation
from services.stripe_double.webhooks import DeliveryAttempt, Webhooks

PREFIX = "/_double/"
Arguments = dict[str, Any]


class ControlledDouble(Protocol):
    """The part of `StripeDouble` that the control API uses."""

    clock: Clock
    faults: Faults
    webhooks: Webhooks
    simulate: Simulation

    @property
    def log(self) -> list[LoggedRequest]:
        """The request log."""

    @property
    def deliveries(self) -> list[DeliveryAttempt]:
        """The delivery attempts."""

    def objects(self, kind: str) -> list[Json]:
        """Return all objects of a kind."""

    def outage(self) -> AbstractAsyncContextManager[None]:
        """Refuse connections inside the block."""


class Control:
    """ASGI application: the control API. It requires the secret key, like Stripe's API.

    Arguments are a JSON object or the query string. The README of this folder has examples.

    | request | effect |
    |---|---|
    | `GET objects?kind=subscription` | all objects of a kind |
    | `GET log`, `GET deliveries` | the request log, the delivery attempts |
    | `GET clock` | `{"now": Unix seconds}` |
    | `POST clock` | advance: `{"advance": seconds}` or `{"to": Unix seconds}` |
    | `POST faults`, `DELETE faults` | add a fault (the arguments of `Faults.add`), remove all |
    | `POST outage` | `{"seconds": 2}`: refuse connections for that time |
    | `POST webhooks` | `url`, `secrets`, `thin`; the members of `DeliveryFaults`, reset where left out |
    | `POST webhooks/hold`, `webhooks/release` | hold deliveries, make them (`order`: event IDs) |
    | `POST webhooks/resend` | `{"event": id}` |
    | `POST webhooks/drain` | `{"seconds": 10}`: respond when no delivery is pending, else 504 |
    | `POST simulate/<action>` | a method of `Simulation` with its arguments by name |

    Args:
        double: The double.
        api_keys: The valid secret keys.
    """

    def __init__(self, double: ControlledDouble, api_keys: Sequence[str]) -> None:
        self._double = double
        self._api_keys = tuple(api_keys)
        self._outages: set[asyncio.Task[None]] = set()
        self._routes: dict[str, Callable[[Arguments], Awaitable[Any]]] = {
            "GET objects": self._list_objects,
            "GET log": self._list_requests,
            "GET deliveries": self._list_deliveries,
            "GET clock": self._get_time,
            "POST clock": self._advance_clock,
            "POST faults": self._add_fault,
            "DELETE faults": self._clear_faults,
            "POST outage": self._start_outage,
            "POST webhooks": self._configure_webhooks,
            "POST webhooks/hold": self._hold,
            "POST webhooks/release": self._release,
            "POST webhooks/resend": self._resend,
            "POST webhooks/drain": self._drain,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request: 200 with JSON, 400 for invalid arguments, 401, 404 or 504."""
        encoded = await read_body(receive)
        try:
            self._authenticate(scope)
            arguments: Arguments = json.loads(encoded) if encoded else {}
            arguments |= {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
            result = await self._call(scope["method"], scope["path"].removeprefix(PREFIX), arguments)
            response = Response(200, json.dumps(result, default=str).encode())
        except StripeApiError as error:
            response = error_response(error)
        except TimeoutError:
            response = error_response(
                StripeApiError("Deliveries are still pending: see GET deliveries.", status=504, type="api_error")
            )
        except (KeyError, TypeError, ValueError) as error:
            response = error_response(StripeApiError(f"Invalid arguments: {type(error).__name__}: {error}"))
        await send_response(send, response, {})

    def _authenticate(self, scope: Scope) -> None:
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        # Without a key, any web page in a browser on this machine could use the control API.
        if api_key_from(authorization) not in self._api_keys:
            raise StripeApiError(
                "The control API requires the secret key, as Bearer token or user of Basic authentication.", status=401
            )

    async def _call(self, method: str, path: str, arguments: Arguments) -> Any:
        if method == "POST" and path.startswith("simulate/"):
            name = path.removeprefix("simulate/")
            action = None if name.startswith("_") else getattr(self._double.simulate, name, None)
            if action is not None:
                return action(**arguments)
        route = self._routes.get(f"{method} {path}")
        if route is None:
            raise StripeApiError(f"The control API has no route {method} {PREFIX}{path}.", status=404)
        return await route(arguments)

    async def _list_objects(self, arguments: Arguments) -> Any:
        return self._double.objects(arguments["kind"])

    async def _list_requests(self, _: Arguments) -> Any:
        return [asdict(request) for request in self._double.log]

    async def _list_deliveries(self, _: Arguments) -> Any:
        return [asdict(attempt) for attempt in self._double.deliveries]

    async def _get_time(self, _: Arguments) -> Any:
        return {"now": self._double.clock.now()}

    async def _advance_clock(self, arguments: Arguments) -> Any:
        if "to" in arguments:
            await self._double.clock.advance_to(datetime.fromtimestamp(arguments["to"], UTC))
        else:
            await self._double.clock.advance(timedelta(seconds=arguments["advance"]))
        return {"now": self._double.clock.now()}

    async def _add_fault(self, arguments: Arguments) -> Any:
        return asdict(self._double.faults.add(**arguments))

    async def _clear_faults(self, _: Arguments) -> Any:
        hits = sum(fault.hits for fault in self._double.faults.active)
        self._double.faults.clear()
        return {"hits": hits}

    async def _start_outage(self, arguments: Arguments) -> Any:
        task = asyncio.create_task(self._outage(float(arguments["seconds"])))
        self._outages.add(task)
        task.add_done_callback(self._outages.discard)
        return {}

    async def _outage(self, seconds: float) -> None:
        await asyncio.sleep(0.05)  # The response to the request for the outage must get out first.
        async with self._double.outage():
            await asyncio.sleep(seconds)

    async def _configure_webhooks(self, arguments: Arguments) -> Any:
        webhooks = self._double.webhooks
        if "secrets" in arguments:
            webhooks.secrets = list(arguments.pop("secrets"))
        if "url" in arguments:
            webhooks.url = arguments.pop("url")
        webhooks.thin = bool(arguments.pop("thin", webhooks.thin))
        webhooks.api_version = str(arguments.pop("api_version", webhooks.api_version))
        webhooks.faults = DeliveryFaults(**arguments)
        return {"url": webhooks.url, "pending": len(webhooks.pending)}

    async def _hold(self, _: Arguments) -> Any:
        self._double.webhooks.hold()
        return {}

    async def _release(self, arguments: Arguments) -> Any:
        await self._double.webhooks.release(arguments.get("order"))
        return {}

    async def _resend(self, arguments: Arguments) -> Any:
        self._double.webhooks.resend(arguments["event"])
        return {}

    async def _drain(self, arguments: Arguments) -> Any:
        await self._double.webhooks.drain(float(arguments.get("seconds", 10)))
        return {}
