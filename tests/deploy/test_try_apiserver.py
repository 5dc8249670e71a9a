"""The parts of the proof on a real kube-apiserver that need none. `make try-apiserver` runs the whole."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.environments import ROOT

FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(folder for folder in (FOLDER / "overlays").iterdir() if folder.is_dir())


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(FOLDER / "try_apiserver")
    return importlib.import_module


def test_go_mod_replaces_the_staging_modules_by_their_published_versions(load: Callable[[str], Any]) -> None:
    requirements = {
        "Go": "1.24.0",
        "Require": [
            {"Path": "go.etcd.io/etcd/client/v3", "Version": "v3.6.4"},
            {"Path": "k8s.io/api", "Version": "v0.0.0"},
            {"Path": "k8s.io/utils", "Version": "v0.0.0-20250604170112-4c0f3b243397"},
        ],
        "Replace": [{"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}}],
    }
    assert load("go_programs").go_mod("1.34.4", requirements).splitlines() == [
        "module nest.test/apiserver",
        "go 1.24.0",
        "require k8s.io/kubernetes v1.34.4",
        "replace k8s.io/api => k8s.io/api v0.34.4",
        "require go.etcd.io/etcd/client/v3 v3.6.4",
        "require k8s.io/utils v0.0.0-20250604170112-4c0f3b243397",
        "require go.etcd.io/etcd/server/v3 v3.6.4",
    ]


def stored(**changed: Any) -> dict[str, Any]:
    metadata = {"name": "auth", "resourceVersion": "7", "managedFields": [], "annotations": {"a": "b"}}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 2}, "status": {}, **changed}


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (stored(), False),
        (stored(status={"replicas": 2}), False),
        (stored(metadata={**stored()["metadata"], "resourceVersion": "8"}), False),
        (
            stored(
                metadata={
                    **stored()["metadata"],
                    "annotations": {"a": "b", "deployment.kubernetes.io/revision": "1"},
                }
            ),
            False,
        ),
        (stored(metadata={**stored()["metadata"], "annotations": {}}), True),
        (stored(spec={"replicas": 3}), True),
        (None, True),
    ],
)
def test_what_counts_as_a_change(load: Callable[[str], Any], after: dict[str, Any] | None, *, changed: bool) -> None:
    proof = load("overlay_proof")
    now = {} if after is None else {"Deployment auth": proof.declared_part(after)}
    names = proof.differing({"Deployment auth": proof.declared_part(stored())}, now)
    assert names == (["Deployment auth"] if changed else [])


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda folder: str(folder.name))
def test_every_overlay_can_be_changed_as_the_proof_does(
    load: Callable[[str], Any], overlay: Path, tmp_path: Path
) -> None:
    proof = load("overlay_proof")
    kustomization = (overlay / "kustomization.yaml").read_text()
    assert proof.other_image(kustomization) != kustomization
    proof.fill_in_secrets(FOLDER / "secrets.example", tmp_path)
    for name in ("secrets/auth.env", "settings.env"):
        assert name in kustomization
    variables = [
        line.partition("=")
        for file in tmp_path.glob("*.env")
        for line in file.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert variables
    assert all(value for _, _, value in variables)
