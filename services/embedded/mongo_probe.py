"""Readiness of the embedded replica set, and its first configuration."""

import asyncio
import contextlib
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from services.embedded.ports import LOOPBACK

_NOT_YET_INITIALIZED = 94
_INVALID_CONFIGURATION = 93


def connect(port: int) -> AsyncMongoClient[dict[str, Any]]:
    """Return a client of the node itself, in any state; close it after use."""
    return AsyncMongoClient(LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=200)


async def is_primary(client: AsyncMongoClient[dict[str, Any]], port: int) -> bool:
    """Whether the node on this loopback port accepts writes.

    Until it does, each call takes the next step: it initiates a new replica set `rs0`, or changes the address of its
    member if the port has changed.
    """
    # If the port is not open yet, the driver would wait before its next attempt.
    if not await listens(port):
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
    try:
        await client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        code = error.code
    else:
        return
    configuration = {"_id": "rs0", "version": 1, "members": [{"_id": 0, "host": member}]}
    with contextlib.suppress(PyMongoError):  # the next call tries again
        if code == _NOT_YET_INITIALIZED:
            await client.admin.command("replSetInitiate", configuration)
        elif code == _INVALID_CONFIGURATION:
            old = (await client.local["system.replset"].find_one()) or {}
            version = int(old.get("version", 0)) + 1
            await client.admin.command("replSetReconfig", configuration | {"version": version}, force=True)


async def listens(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
