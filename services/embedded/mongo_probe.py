"""Does the one node of a replica set take writes now? If it has no configuration yet, it is given one."""

import asyncio
import contextlib
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from services.embedded.ports import LOOPBACK

_NOT_YET_INITIALIZED = 94
_INVALID_CONFIGURATION = 93


def connect(port: int) -> AsyncMongoClient[dict[str, Any]]:
    """A client that speaks to the node itself, whatever its state; close it after use."""
    return AsyncMongoClient(LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=200)


async def is_primary(client: AsyncMongoClient[dict[str, Any]], port: int) -> bool:
    """Whether the node on this loopback port takes writes.

    While it does not, each call does what helps next: it initiates a new replica set `rs0`, and renames the
    member of one whose port had to change.
    """
    # Through the driver, a port that is not open yet would cost the driver's wait between two tries.
    if not await _listens(port):
        return False
    member = f"{LOOPBACK}:{port}"
    try:
        hello = await client.admin.command("hello")
        if hello.get("isWritablePrimary"):
            return bool(hello.get("me") == member)
        await _configure(client, member)
    except ConnectionFailure:
        return False
    return False


async def _configure(client: AsyncMongoClient[dict[str, Any]], member: str) -> None:
    status = await _complaint(client)
    configuration = {"_id": "rs0", "version": 1, "members": [{"_id": 0, "host": member}]}
    with contextlib.suppress(PyMongoError):  # asked again at the next look
        if status == _NOT_YET_INITIALIZED:
            await client.admin.command("replSetInitiate", configuration)
        elif status == _INVALID_CONFIGURATION:
            old = (await client.local["system.replset"].find_one()) or {}
            version = int(old.get("version", 0)) + 1
            await client.admin.command("replSetReconfig", configuration | {"version": version}, force=True)


async def _complaint(client: AsyncMongoClient[dict[str, Any]]) -> int | None:
    """The code of what mongod says against its replica set; None for a working one."""
    try:
        await client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        return error.code
    return None


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
