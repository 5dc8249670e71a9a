"""The README of the Stripe double: its examples work, and it names every action and every route."""

import inspect
import itertools
import re
import shlex
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

import services.stripe_double
from services.stripe_double import FaultKind, StripeDouble
from services.stripe_double.faults import DeliveryFaults
from services.stripe_double.simulation import Simulation
from tests.stripe_double.shop import until

README: Final = (Path(services.stripe_double.__file__).parent / "README.md").read_text()
EXAMPLES: Final = re.findall(r"^curl (.+)$", README, re.MULTILINE)


def request(example: str, url: str) -> dict[str, Any]:
    """Return the httpx request of a curl command line."""
    arguments = shlex.split(example)
    assert arguments[:2] == ["-u", "sk_test_double:"]
    data = [value for option, value in itertools.pairwise(arguments) if option == "-d"]
    method = arguments[arguments.index("-X") + 1] if "-X" in arguments else "POST" if data else "GET"
    return {"method": method, "url": arguments[2].replace("127.0.0.1:12111", url), "content": "&".join(data)}


async def test_every_curl_example_works() -> None:
    assert len(EXAMPLES) > 15
    async with (
        StripeDouble(api_key="sk_test_double") as double,
        httpx.AsyncClient(auth=("sk_test_double", "")) as http,
    ):
        for example in EXAMPLES:
            double.faults.clear()
            response = await http.request(**request(example, double.url))
            assert response.status_code == 200, (example, response.text)
            if "/outage" in example:
                await until(lambda: double._listener._server is None)
                await until(lambda: double._listener._server is not None)


def test_every_simulated_action_is_described() -> None:
    actions = [name for name, _ in inspect.getmembers(Simulation, inspect.isfunction) if not name.startswith("_")]
    assert len(actions) > 15
    table = README.partition("### Simulated actions")[2].partition("###")[0]
    assert [name for name in actions if f"`{name}`" not in table] == []


async def test_every_control_route_is_described() -> None:
    async with StripeDouble() as double:
        routes = {route.partition(" ")[2] for route in double._control._routes}
    section = README.partition("## Control API")[2].partition("## Source files")[0]
    assert [route for route in sorted(routes) if not re.search(rf"(_double/|`){route}\b", section)] == []


@pytest.mark.parametrize("name", [*FaultKind, *(name for name in vars(DeliveryFaults()) if name[0] != "_")])
def test_every_fault_is_described(name: str) -> None:
    assert f"`{name}`" in README or f'"{name}"' in README
