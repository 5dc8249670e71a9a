import asyncio
from pathlib import Path

import pytest

from services.embedded import jars
from services.embedded.console import Silent
from services.embedded.errors import DidNotStart
from services.embedded.kafka import EmbeddedKafka
from services.embedded.kafka_install import KafkaInstallation, ensure_startup_cache, install


class Runs:
    """Stands in for a run of Kafka."""

    def __init__(self, *, fails: bool) -> None:
        self.count = 0
        self._fails = fails

    async def __call__(self, folder: Path, options: tuple[str, ...], seconds: float) -> None:
        assert seconds > 0
        self.count += 1
        if self._fails:
            raise DidNotStart("Apache Kafka", "of this test", folder / "log")
        recorded = next(option for option in options if "AOTConfiguration=" in option).partition("=")[2]
        await asyncio.to_thread(Path(recorded).write_text, "what a run loaded")


@pytest.fixture
async def installation(tmp_path: Path) -> KafkaInstallation:
    """An installation of its own, whose Java does nothing."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 0\n")
    java.chmod(0o755)
    return KafkaInstallation(java, [], tmp_path)


async def ensure(installation: KafkaInstallation, runs: Runs) -> None:
    await ensure_startup_cache(installation, runs, Silent(), heap_mb=64)


async def test_the_cache_is_made_once(installation: KafkaInstallation) -> None:
    script = 'for word; do case "$word" in -XX:AOTCache=*) echo made > "${word#*=}";; esac; done'
    installation.java.write_text(f"#!/bin/sh\n{script}\n")
    runs = Runs(fails=False)
    await ensure(installation, runs)
    await ensure(installation, runs)
    assert installation.startup_cache.read_text() == "made\n"
    assert runs.count == 1


@pytest.mark.parametrize("fails", [True, False], ids=["no run", "no cache of a run"])
async def test_a_machine_that_cannot_make_it_is_not_bothered_again(
    installation: KafkaInstallation, *, fails: bool
) -> None:
    runs = Runs(fails=fails)
    await ensure(installation, runs)
    await ensure(installation, runs)
    assert installation.startup_cache.read_bytes() == b""
    assert runs.count == 1


async def test_kafka_starts_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = await install(Silent())
    folder = tmp_path / "installation"
    folder.mkdir()
    monkeypatch.setattr(jars, "installation", lambda: folder)
    (folder / "jars").symlink_to(real.folder / "jars")
    (folder / "formatted").symlink_to(real.folder / "formatted")
    (folder / real.startup_cache.name).touch()
    async with EmbeddedKafka(tmp_path / "data") as kafka:
        assert kafka.pid
