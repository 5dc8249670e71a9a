import subprocess
import sys
import time
from importlib import metadata

import pytest


def nest(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *words],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_lists_commands_and_shows_examples() -> None:
    assert {"up", "run", "services", "topics"} <= set(nest("--help").stdout.split())
    assert "nest up --port 8081" in nest("up", "--help").stdout


def test_without_a_command_help_is_printed() -> None:
    assert "Usage" in nest().stdout


def test_version_is_that_of_the_package() -> None:
    assert nest("--version").stdout == f"nest {metadata.version('nest')}\n"


def test_help_imports_no_service() -> None:
    script = "import sys; import services.cli; print(*(set(sys.modules) & {'aiokafka', 'pymongo', 'stripe', 'httpx'}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_help_takes_less_than_a_third_of_a_second() -> None:
    durations = []
    for _ in range(5):
        began = time.monotonic()
        nest("--help")
        durations.append(time.monotonic() - began)
    assert min(durations) < 0.3


@pytest.mark.parametrize("service", ["gateway", "auth", "billing", "mailer", "news"])
def test_service_without_settings_names_the_variables_and_exits(service: str) -> None:
    done = nest("run", service)
    assert done.returncode == 78
    assert f"nest {service} can't start:" in done.stderr
    assert "NEST_KAFKA_BOOTSTRAP: is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_service_is_wrong_usage() -> None:
    assert nest("run", "kitchen").returncode == 2
