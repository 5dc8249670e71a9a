"""Does a Kafka broker take requests now? Asked with one hand-made request, as clients log each refusal."""

import asyncio
import struct

# Metadata request (API 3), version 1, correlation id 7, no client id, an array of no topics.
_METADATA = struct.pack(">hhihi", 3, 1, 7, -1, 0)
_TIMEOUT_SECONDS = 2.0


async def answers(host: str, port: int) -> bool:
    """Whether the broker there answers, and counts at least one live broker (itself) in its cluster."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(struct.pack(">i", len(_METADATA)) + _METADATA)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                answer = await reader.readexactly(size)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    # Response version 1: correlation id, then the array of live brokers.
    correlation, brokers = struct.unpack_from(">ii", answer)
    return bool(correlation == 7 and brokers >= 1)  # noqa: PLR2004 - the id sent above
