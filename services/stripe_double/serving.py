"""Where does the double listen? uvicorn's HTTP protocol on a socket of ours, in the running loop."""

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


class _Connection(HttpToolsProtocol):
    """A connection whose transport the application can reach, to reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


def reset(scope: dict[str, Any]) -> None:
    """Resets the connection of a request: the caller sees ECONNRESET, whatever was done."""
    transport = cast("asyncio.Transport", scope["state"]["transport"])
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Listener:
    """One listening socket; it installs no signal handlers and starts no threads.

    Args:
        application: The ASGI application that answers.
        host: Where to listen.
        port: 0 for any free one; it stays the same when the door is closed and opened again.
    """

    def __init__(self, application: Any, host: str, port: int) -> None:
        self._config = Config(
            application,
            host=host,
            http=_Connection,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
        )
        self._host = host
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self.port = port

    async def open(self) -> None:
        """Accepts connections.

        Raises:
            OSError: The port is taken.
        """
        if not self._config.loaded:
            self._config.load()
        reserved = self._reserved or self._bound()
        self._reserved = None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(config=self._config, server_state=self._state, app_state={}), sock=reserved
        )

    async def refuse(self) -> None:
        """Ends all connections and refuses new ones, until `open`; the port stays ours."""
        self._close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        # Bound without listening: the kernel refuses connections, and nobody else gets the port.
        self._reserved = self._bound()

    async def close(self) -> None:
        """Stops listening, lets calls under way finish for a moment, then ends them."""
        self._close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reserved is not None:
            self._reserved.close()

    def _bound(self) -> socket.socket:
        # Without the protocol said aloud asyncio leaves Nagle's algorithm on, and answers take 40 ms.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((self._host, self.port))
        self.port = bound.getsockname()[1]
        return bound

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
