"""How are several things begun at once, such that none is left half begun when one fails?"""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*work: Coroutine[Any, Any, Any]) -> None:
    """Runs all of them side by side.

    Raises:
        Exception: the first failure, after the others were cancelled and have come to their end.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
