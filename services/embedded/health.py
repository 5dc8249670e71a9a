"""Is a service of this machine well?"""

import asyncio

import httpx

from services.embedded.ports import LOOPBACK

_LOOK_SECONDS = 0.1


async def healthy(port: int) -> None:
    """Returns when `/healthz` on this loopback port says so; until then it asks ten times a second."""
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://{LOOPBACK}:{port}/healthz")).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet; whether it ended is looked at elsewhere
            await asyncio.sleep(_LOOK_SECONDS)
