import subprocess
import sys
import time
from importlib import metadata

import pytest


def nest(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *words],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_names_every_command_and_shows_an_example() -> None:
    assert {"up", "run", "services", "topics"} <= set(nest("--help").stdout.split())
    assert "nest up --port 8081" in nest("up", "--help").stdout


def test_without_a_command_it_shows_its_help() -> None:
    assert "Usage" in nest().stdout


def test_its_version_is_the_packages() -> None:
    assert nest("--version").stdout == f"nest {metadata.version('nest')}\n"


def test_help_imports_none_of_the_services() -> None:
    script = "import sys; import services.cli; print(*(set(sys.modules) & {'aiokafka', 'pymongo', 'stripe', 'httpx'}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_help_is_there_in_a_third_of_a_second() -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        nest("--help")
        took.append(time.monotonic() - began)
    assert min(took) < 0.3


@pytest.mark.parametrize("service", ["gateway", "auth", "billing", "mailer", "news"])
def test_a_service_that_was_told_nothing_names_the_variables_and_ends(service: str) -> None:
    done = nest("run", service)
    assert done.returncode == 78
    assert f"nest {service} can't start:" in done.stderr
    assert "NEST_KAFKA_BOOTSTRAP: is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_service_is_refused() -> None:
    assert nest("run", "kitchen").returncode == 2
