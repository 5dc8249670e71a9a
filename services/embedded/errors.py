"""Errors of the embedded mode, each one line with its remedy."""

from pathlib import Path


class CannotStart(Exception):
    """The embedded mode cannot start; the text is one line for the user, with the remedy."""


class PortTaken(CannotStart):
    """Another process listens on the port."""

    def __init__(self, name: str, port: int, remedy: str) -> None:
        super().__init__(f"{name} can't listen on port {port}, another program uses it: {remedy}")


class FolderNotWritable(CannotStart):
    """A folder cannot be created or written."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"can't write to {folder} ({reason}): choose another folder with --data")


class AlreadyRunning(CannotStart):
    """A running process uses the data folder."""

    def __init__(self, folder: Path, owner: int) -> None:
        super().__init__(f"process {owner} uses {folder}: stop it first, or choose another folder with --data")


class JarsMissing(CannotStart):
    """Apache Kafka's jars could not be downloaded, or differ from the locked ones."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"can't get Apache Kafka's jars ({reason}): try again with a network connection,"
            " or set NEST_KAFKA_BOOTSTRAP to your own Kafka"
        )


class DidNotStart(CannotStart):
    """A child process exited or was not ready in time."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        super().__init__(f"{name} did not start ({reason}): see {log}")
