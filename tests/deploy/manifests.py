"""Rendered overlays: a copy of the manifests with stand-ins for the secrets, rendered by kustomize."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from tests.deploy.environments import ROOT, SETTINGS, STAND_INS

KUSTOMIZE: Final = ROOT / "tests/deploy/kustomize/go/bin/kustomize"
FOLDER: Final = "deploy/kubernetes"
DEPLOYED: Final = ("production", "staging")
"""The overlays that operators edit and apply."""
OVERLAYS: Final = {
    **{name: f"{FOLDER}/overlays/{name}" for name in DEPLOYED},
    "everything": "tests/deploy/overlays/everything",
}
"""``everything`` has each component that the other ones have not."""
SERVICES: Final = tuple(SETTINGS)
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    return [each for each in yaml.load_all(path.read_text(), Loader=LOADER) if each]


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def secrets() -> dict[str, dict[str, str]]:
    """Return the variables of each Secret, with stand-ins for their values."""
    files = (ROOT / FOLDER / "secrets.example").glob("*.env")
    return {f"nest-{file.stem}": {name: STAND_INS[name] for name in env_file(file)} for file in files}


class Rendered:
    """The objects of a rendered overlay."""

    def __init__(self, text: str) -> None:
        self.all: Final[list[Object]] = list(yaml.load_all(text, Loader=LOADER))

    def objects(self, kind: str) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in self.all if each["kind"] == kind}

    def pods(self) -> dict[str, Object]:
        """Return the pod templates of Deployments, Jobs and CronJobs by their component."""
        specs = [each["spec"] for kind in ("Deployment", "Job") for each in self.objects(kind).values()]
        specs += [each["spec"]["jobTemplate"]["spec"] for each in self.objects("CronJob").values()]
        templates = [each["template"] for each in specs]
        return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in templates}

    def pod(self, component: str) -> Object:
        return dict(self.pods()[component]["spec"])

    def container(self, component: str) -> Object:
        (found,) = self.pod(component)["containers"]
        return dict(found)

    def settings(self, component: str = "gateway") -> dict[str, str]:
        """Return the ConfigMap that a pod has as its environment."""
        (source,) = self.container(component)["envFrom"]
        return dict(self.objects("ConfigMap")[source["configMapRef"]["name"]]["data"])

    def secret_keys(self, component: str) -> dict[str, dict[str, Any]]:
        """Return the references of a pod to Secrets, by variable."""
        variables = self.container(component)["env"]
        return {each["name"]: each["valueFrom"]["secretKeyRef"] for each in variables if "valueFrom" in each}

    def environment(self, component: str, *, optional: bool = True) -> dict[str, str]:
        """Return the environment of a container, with or without the keys of Secrets that may be absent.

        It names no mounted file, because that does not exist here.
        """
        values = {name: value for name, value in self.settings(component).items() if not name.endswith("_CA_FILE")}
        values |= {each["name"]: each["value"] for each in self.container(component)["env"] if "value" in each}
        for name, reference in self.secret_keys(component).items():
            if optional or not reference.get("optional"):
                values[name] = STAND_INS[reference["key"]]
        if values["NEST_STRIPE_LIVEMODE"] == "true" and "NEST_STRIPE_API_KEY" in values:
            values["NEST_STRIPE_API_KEY"] = "sk_live_of_a_test"
        return values


def render(overlay: str, changes: Mapping[str, tuple[str, str]] | None = None) -> Rendered:
    """Render an overlay.

    Args:
        overlay: a key of ``OVERLAYS``.
        changes: text to replace and its replacement, by file; the file's path is relative to the overlay.
    """
    return _render(overlay, tuple((changes or {}).items()))


@cache
def _render(overlay: str, changes: tuple[tuple[str, tuple[str, str]], ...]) -> Rendered:
    assert KUSTOMIZE.exists(), "run tests/deploy/kustomize/install"
    with tempfile.TemporaryDirectory() as folder:
        for tree in (FOLDER, "tests/deploy/overlays"):
            shutil.copytree(ROOT / tree, Path(folder, tree), ignore=shutil.ignore_patterns("secrets"))
        path = Path(folder, OVERLAYS[overlay])
        if overlay in DEPLOYED:
            (path / "secrets").mkdir()
            for name, variables in secrets().items():
                lines = [f"{variable}={value}\n" for variable, value in variables.items()]
                (path / "secrets" / f"{name.removeprefix('nest-')}.env").write_text("".join(lines))
        for file, (old, new) in changes:
            text = (path / file).read_text()
            assert old in text, f"{file} has no {old!r}"
            (path / file).write_text(text.replace(old, new))
        built = subprocess.run([KUSTOMIZE, "build", path], capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        return Rendered(built.stdout)
