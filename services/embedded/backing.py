"""Which Kafka and MongoDB does this machine use: those that the environment names, or embedded ones?"""

import os
from pathlib import Path

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from services.embedded.progress import Progress


class Kafka:
    """NEST_KAFKA_BOOTSTRAP, else an embedded Kafka.

    Attributes:
        bootstrap: its address, once started.
        own: the embedded one, if it is that.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.bootstrap = os.environ.get("NEST_KAFKA_BOOTSTRAP", "")
        self.own = None if self.bootstrap else EmbeddedKafka(folder, progress=progress)

    async def start(self) -> None:
        """Returns when it takes requests; raises CannotStart."""
        if self.own:
            await self.own.start()
            self.bootstrap = self.own.bootstrap

    async def stop(self) -> None:
        """Returns when it is gone; leaves one that the environment names alone."""
        if self.own:
            await self.own.stop()


class Mongo:
    """NEST_MONGO_URL, else an embedded MongoDB.

    Attributes:
        url: its address, once started.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.url = os.environ.get("NEST_MONGO_URL", "")
        self._own = None if self.url else EmbeddedMongo(folder, progress=progress)

    async def start(self) -> None:
        """Returns when it takes requests; raises CannotStart."""
        if self._own:
            await self._own.start()
            self.url = self._own.url

    async def stop(self) -> None:
        """Returns when it is gone; leaves one that the environment names alone."""
        if self._own:
            await self._own.stop()
