"""Where is the inbox to be seen when the gateway runs in a process of its own?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata

from starlette.applications import Starlette

from services.embedded.demo import CLIENT_ID
from services.embedded.machine import DRAIN_SECONDS, Machine
from services.embedded.pages import Pages
from services.embedded.ports import LOOPBACK
from services.gateway.server import Server

_CONNECTIONS = 100


@asynccontextmanager
async def inbox_server(around: Machine) -> AsyncIterator[str]:
    """Serves the inbox's pages on a free port of loopback; gives the page's address."""
    pages = Pages(
        Starlette(),
        inbox=around.inbox,
        base_url=around.base_url,
        client_id=CLIENT_ID,
        version=metadata.version("nest"),
        logins=False,
    )
    server = Server(pages, host=LOOPBACK, port=0, connections=_CONNECTIONS, drain_seconds=DRAIN_SECONDS)
    await server.start()
    try:
        yield f"http://{LOOPBACK}:{server.port}/dev/inbox"
    finally:
        await server.stop()
