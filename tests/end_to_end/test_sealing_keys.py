"""Replacement of the sealing key of a running Nest, until the old one is gone."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import httpx
import pytest

from services.embedded.demo import CLIENT_ID
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.end_to_end.flows import Mongo, database, redeem_trial
from tests.stack import ALL_SERVICES, Login, RunNest, Stack, eventually

SERVICES = ("auth", "billing", "mailer", "news", "gateway")
"""In the order of their restarts: auth announces its keys and clients anew."""


async def restart(nest: Stack, **changes: str) -> None:
    for process in sorted(nest.processes.values(), key=lambda each: SERVICES.index(each.name)):
        await process.stop()
        await process.start(**changes)
    await eventually(lambda: healthy(nest), what="all processes")


async def healthy(nest: Stack) -> bool:
    try:
        responses = [await nest.http.get(f"{url}/healthz") for url in (*nest.health.values(), *nest.urls)]
    except httpx.HTTPError:
        return False
    return all(response.status_code == 200 for response in responses)


@pytest.mark.slow
async def test_after_resealing_nest_runs_without_the_old_key(run_nest: RunNest, mongo_client: Mongo) -> None:
    async with run_nest(separate=ALL_SERVICES) as nest:
        old = nest.environment["NEST_SEALING_KEYS"]
        new = f"k2:{base64.b64encode(secrets.token_bytes(32)).decode()}"
        tokens = await redeem_trial(nest, Login("ada@example.com"))
        refreshed = await refresh(nest, tokens)
        # Processes report what they have sealed only while they run.
        counts = database(nest, mongo_client, "auth")["sealing_keys"]
        await eventually(lambda: counts.count_documents({"_id": "k1"}), what="the count of the old key")
        for keys in (f"{old},{new}", f"{new},{old}"):
            await restart(nest, NEST_SEALING_KEYS=keys)
            assert (await user_of(nest, refreshed)).status_code == 200
        environment = {name: nest.environment[name] for name in ("NEST_MONGO_URL", "NEST_DATABASE_PREFIX")}
        resealed = await nest.command("keys", "reseal", **environment, NEST_SEALING_KEYS=f"{new},{old}")
        assert (resealed.code, resealed.err) == (0, ""), resealed
        assert "mailer: " in resealed.out
        assert sum(int(line.split()[-4]) for line in resealed.out.splitlines() if "sealed again" in line) > 0
        again = await nest.command("keys", "reseal", "--json", **environment, NEST_SEALING_KEYS=f"{new},{old}")
        assert '"resealed": 0' in again.out

        await restart(nest, NEST_SEALING_KEYS=new)
        assert (await user_of(nest, refreshed)).status_code == 200
        # The reply of the refresh under the old key is unsealed, and given again.
        assert (await refresh(nest, tokens))["refresh_token"] == refreshed["refresh_token"]
        sealer, deliveries = Sealer(parse_keys(new)), database(nest, mongo_client, "mailer")["deliveries"]
        assert {sealer.unseal("mailer", each["recipient"]) for each in deliveries.find()} == {b"ada@example.com"}
        assert (await nest.log_in("ada@example.com"))["user_id"] == tokens["user_id"]
        await eventually(lambda: {each["_id"] for each in counts.find()} >= {"k1", "k2"}, what="the counts")


async def refresh(nest: Stack, tokens: dict[str, Any]) -> dict[str, Any]:
    body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    response = await nest.call("authenticate_user", body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def user_of(nest: Stack, tokens: dict[str, Any]) -> Any:
    return await nest.call("get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}")
