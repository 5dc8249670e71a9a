"""The image, built and run by a Docker engine. Without one the tests are skipped.

NEST_TEST_PYTHON_IMAGE names the base image; by default `make_base_image` makes one from Debian's packages.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest

from tests.deploy.environments import ROOT
from tests.end_to_end.flows import redeem_trial
from tests.stack import Login, Process, Stack, eventually

pytestmark = pytest.mark.slow

SERVICES: Final = ("gateway", "auth", "billing", "mailer", "news")
MAX_BYTES: Final = 200_000_000
LABELS: Final = "org.opencontainers.image."
EPOCH: Final = "1767225600"
RESTRICTED: Final = ("--network=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true")


def docker(*words: str, check: bool = True, timeout: float = 120) -> str:
    """Run a command of the Docker client and return its standard output."""
    ran = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=timeout)
    assert ran.returncode == 0 or not check, f"docker {' '.join(words)}: {ran.stdout}{ran.stderr}"
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def engine() -> str:
    """The version of the Docker engine."""
    if shutil.which("docker") is None:
        pytest.skip("there is no Docker client")
    version = docker("version", "--format", "{{.Server.Version}}", check=False, timeout=30)
    if not version:
        pytest.skip("no Docker engine answers")
    return version


@pytest.fixture(scope="module")
def base(engine: str) -> str:
    """The name of the base image."""
    if name := os.environ.get("NEST_TEST_PYTHON_IMAGE"):
        return name
    if not docker("images", "--quiet", "nest-base:test"):
        subprocess.run([ROOT / "tests/deploy/make_base_image", "nest-base:test"], check=True, timeout=900)
    return "nest-base:test"


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """The name of the image, built as `make image` does, with this machine's settings of pip."""
    arguments = ["--network=host"]
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments.append(f"--build-arg=PIP_INDEX_URL={index}")
    if os.environ.get("PIP_CERT") and "NEST_TEST_PYTHON_IMAGE" not in os.environ:
        arguments.append("--build-arg=PIP_CERT=/etc/build-ca.pem")
    subprocess.run(
        ["make", "image-local", f"PYTHON_IMAGE={base}", "IMAGE_TAG=test", f"IMAGE_ARGS={' '.join(arguments)}"],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        check=True,
        timeout=1800,
    )
    yield "nest:test"
    docker("rmi", "nest:test")


class Container(Process):
    """A service in a container on the host's network, with a read-only file system and no capabilities."""

    id: str

    async def start(self, **more: str) -> None:
        variables = self._log.with_suffix(".env")
        variables.write_text("".join(f"{name}={value}\n" for name, value in {**self.environment, **more}.items()))
        words = ("run", "--detach", *RESTRICTED, "--health-interval=1s", "--env-file", str(variables))
        self.id = await asyncio.to_thread(docker, *words, "nest:test", "run", self.name)

    @property
    def state(self) -> dict[str, Any]:
        """Docker's state of the container."""
        state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", self.id))
        return state

    @property
    def pid(self) -> int:
        return int(self.state["Pid"])

    @property
    def exit_code(self) -> int | None:
        state = self.state
        return None if state["Running"] else int(state["ExitCode"])

    async def stop(self) -> None:
        """Stop it as Docker does: SIGTERM, and SIGKILL after 30 seconds. Keep its log."""
        await asyncio.to_thread(docker, "stop", "--time", "30", self.id)
        self._log.write_text(docker("logs", self.id))
        assert self.exit_code == 0, f"{self.name} ended with {self.exit_code}: {self.log[-2000:]}"
        docker("rm", self.id)


@pytest.fixture(scope="module")
async def nest(image: str, run_nest: Callable[..., AbstractAsyncContextManager[Stack]]) -> AsyncIterator[Stack]:
    """All five services in containers."""
    async with run_nest(separate=SERVICES, process=Container) as stack:
        yield stack


def shell(image: str, script: str) -> str:
    return docker("run", "--rm", *RESTRICTED, "--entrypoint", "sh", image, "-c", script)


def test_the_image_is_under_200_mb(image: str) -> None:
    size = int(docker("inspect", "--format", "{{.Size}}", image))
    assert size < MAX_BYTES, f"{size / 1e6:.0f} MB"


def test_the_labels_name_version_revision_and_a_reproducible_time(image: str, base: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels[f"{LABELS}title"] == "Nest"
    assert labels[f"{LABELS}description"] == project["description"]
    assert labels[f"{LABELS}licenses"] == project["license"]
    assert labels[f"{LABELS}version"] == project["version"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels[f"{LABELS}revision"])
    assert labels[f"{LABELS}created"] == "2026-01-01T00:00:00Z"
    assert labels[f"{LABELS}base.name"] == base


def test_the_image_has_no_compiler_and_no_pip(image: str) -> None:
    assert shell(image, "for each in gcc g++ cc c++ clang make ld as pip pip3; do command -v $each; done; true") == ""
    script = "for each in pip ensurepip setuptools; do python -c 'import '$each 2>/dev/null && echo $each; done; true"
    assert shell(image, script) == ""
    assert shell(image, "find / -xdev -name 'pip*.whl' 2>/dev/null; true") == ""


def test_the_image_runs_as_a_numeric_user_in_utf_8_and_utc(image: str) -> None:
    assert shell(image, "id -u; id -g; date +%Z").split() == ["10001", "10001", "UTC"]
    assert shell(image, "python -c 'import sys; print(sys.getfilesystemencoding(), sys.stdout.encoding)'") == (
        "utf-8 utf-8"
    )


def test_the_bill_of_materials_lists_the_installed_packages(image: str) -> None:
    bill = json.loads(shell(image, "cat /opt/nest/sbom.cdx.json"))
    listed = shell(image, "python -c 'import importlib.metadata as m; print(*{d.name for d in m.distributions()})'")
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in listed.split()}
    for_this_machine = {each["name"] for each in bill["components"]} - {"colorama"}
    assert installed - {"nest"} == for_this_machine


def test_help_and_version_run_read_only(image: str) -> None:
    assert "Passwordless login" in docker("run", "--rm", *RESTRICTED, image)
    assert docker("run", "--rm", *RESTRICTED, image, "--version").startswith("nest ")


def test_unused_modules_are_removed_and_imported_ones_compiled(image: str) -> None:
    folder = "/opt/nest/lib/python3.*/site-packages"
    unused = ("services/stripe_double", "stripe/params", "faststream/rabbit", "pygments/lexers/python.py")
    listed = " ".join(f"{folder}/{each}" for each in unused)
    assert shell(image, f"ls -d {listed} 2>/dev/null; true") == ""
    assert shell(image, f"ls {folder}/services/auth/__pycache__/app.*.pyc").endswith(".pyc")


async def test_nest_in_containers_serves_a_login_and_a_trial(nest: Stack) -> None:
    assert (await redeem_trial(nest, Login("container@example.com")))["access_token"]
    assert len(nest.stripe.objects("subscription")) == 1


async def test_docker_reports_each_service_as_healthy(nest: Stack) -> None:
    for name, container in nest.processes.items():
        await becomes("healthy", container_id(container), what=name)
        log = json.loads(docker("inspect", "--format", "{{json .State.Health.Log}}", container_id(container)))
        assert log[-1]["Output"] == f"{container.name}: 200\n"


async def test_a_command_without_a_health_port_is_healthy(image: str) -> None:
    command = docker("run", "--detach", *RESTRICTED, "--health-interval=1s", "--entrypoint", "sleep", image, "120")
    try:
        await becomes("healthy", command)
    finally:
        docker("rm", "--force", command)


async def test_a_stopped_process_is_unhealthy_until_it_continues(nest: Stack) -> None:
    container = container_id(nest.processes["news"])
    await becomes("healthy", container)
    docker("kill", "--signal", "STOP", container)
    await becomes("unhealthy", container)
    docker("kill", "--signal", "CONT", container)
    await becomes("healthy", container)


async def becomes(status: str, container: str, *, what: str = "the container") -> None:
    """Wait until Docker's health check of a container has this result."""
    words = ("inspect", "--format", "{{.State.Health.Status}}", container)
    await eventually(lambda: docker(*words) == status, within=90, what=f"{what}: {status}")


def container_id(process: Process) -> str:
    assert isinstance(process, Container)
    return process.id
