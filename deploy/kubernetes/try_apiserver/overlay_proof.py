"""Proof of one overlay: applied, changed and deleted on a control plane."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from control_plane import ControlPlane
from steps import Failed, step, until

Object = dict[str, Any]
CONTROLLERS_OWN = ("deployment.kubernetes.io/revision",)
"""Annotations that controllers set."""


class OverlayProof:
    """A copy of an overlay, whose files the steps change.

    Args:
        cluster: a control plane without the objects of the overlay.
        folder: the overlay's folder, in a copy of ``deploy/kubernetes``.
    """

    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self.name = folder.name
        self.namespace = ""
        self._folder = folder
        self._cluster = cluster
        fill_in_secrets(folder.parents[1] / "secrets.example", folder / "secrets")

    def prove(self) -> None:
        """Apply the overlay and changes of it, and look at what the controllers make of it.

        Raises:
            Failed: something is not as it should be.
        """
        with step(f"{self.name}: apply") as notes:
            notes.append(f"{len(self.apply())} objects")
        with step(f"{self.name}: pods created and admitted") as notes:
            notes.append(f"{self.pods()} Pending, as there is no kubelet")
        with step(f"{self.name}: apply again, no error and no change"):
            before = self.stored()
            self.apply()
            if changed := differing(before, self.stored()):
                raise Failed(f"changed: {', '.join(changed)}")
        self.expect_rollout("changed setting", "settings.env", of="all")
        self.expect_rollout("changed secret", "secrets/auth.env", of="auth")
        with step(f"{self.name}: new image, new pods and a new Job") as notes:
            before, jobs = self.templates(), self.names("job")
            file = self._folder / "kustomization.yaml"
            file.write_text(other_image(file.read_text()))
            self.apply()
            if unchanged := before.keys() - differing(before, self.templates()):
                raise Failed(f"not changed: {', '.join(sorted(unchanged))}")
            if not (new := self.names("job") - jobs):
                raise Failed("there is no new Job")
            notes.append(", ".join(sorted(new)))
            self.pods()

    def prove_component(self, component: Path) -> None:
        """Apply the overlay with one more component."""
        with step(f"component {component.name}") as notes:
            folder = self._folder.parent / f"{self.name}-{component.name}"
            folder.mkdir()
            text = {"resources": [f"../{self.name}"], "components": [f"../../components/{component.name}"]}
            (folder / "kustomization.yaml").write_text(json.dumps({**text, "namespace": self.namespace}))
            objects = self._apply(folder)
            self.pods()
            custom = {each["kind"] for each in objects if "." in group_of(each) and ".k8s.io" not in each["apiVersion"]}
            notes.append(f"{len(objects)} objects{''.join(f', {kind}' for kind in sorted(custom))}")

    def expect_rollout(self, change: str, file: str, *, of: str) -> None:
        """Append a variable to a file, and expect that the pod templates of one or all Deployments change."""
        with step(f"{self.name}: {change} replaces the pods of {of}"):
            before = self.templates()
            with (self._folder / file).open("a") as opened:
                opened.write("\nTRY=1\n")
            self.apply()
            changed = set(differing(before, self.templates()))
            if changed != (set(before) if of == "all" else {of}):
                raise Failed(f"the pods of {', '.join(sorted(changed)) or 'no Deployment'} are replaced")
            self.pods()

    def delete(self) -> None:
        """Delete everything, and wait until nothing is left."""
        with step(f"{self.name}: delete"):
            self._cluster.kubectl("delete", "--wait=false", "--filename", self._rendered(self._folder))
            until(lambda: f"{self.namespace} still exists" if self.namespace in self._namespaces() else "")

    def apply(self) -> list[Object]:
        """Render and apply the overlay, and return its objects as stored."""
        return self._apply(self._folder)

    def stored(self) -> dict[str, Object]:
        """Return the overlay's objects by kind and name, without what controllers write to them."""
        objects = self._cluster.get("--filename", self._rendered(self._folder))
        return {f"{each['kind']} {each['metadata']['name']}": declared_part(each) for each in objects}

    def templates(self) -> dict[str, Object]:
        """Return the pod templates of the Deployments by name."""
        deployments = self._cluster.get("deployment", "--namespace", self.namespace)
        return {each["metadata"]["name"]: each["spec"]["template"] for each in deployments}

    def names(self, kind: str) -> set[str]:
        """Return the names of the objects of a kind."""
        return {each["metadata"]["name"] for each in self._cluster.get(kind, "--namespace", self.namespace)}

    def pods(self) -> int:
        """Wait until the controllers have created the pods of every Deployment and Job; return their number."""
        until(self._missing_pods)
        pods = self._cluster.get("pod", "--namespace", self.namespace)
        if other := {each["status"]["phase"] for each in pods} - {"Pending"}:
            raise Failed(f"pods are {', '.join(sorted(other))}")
        return len(pods)

    def _missing_pods(self) -> str:
        events = self._cluster.get("event", "--namespace", self.namespace)
        if refused := [event["message"] for event in events if event["reason"] == "FailedCreate"]:
            raise Failed(f"pods are refused: {refused[0]}")
        for each in self._cluster.get("deployment,job", "--namespace", self.namespace):
            status, job = each.get("status", {}), each["kind"] == "Job"
            # A rollout waits for ready pods, so its first pod is enough.
            found = status.get("active" if job else "updatedReplicas", 0)
            if not found or (not job and status["observedGeneration"] < each["metadata"]["generation"]):
                return f"{each['kind']} {each['metadata']['name']} has no pods"
        return ""

    def _apply(self, folder: Path) -> list[Object]:
        rendered = self._rendered(folder)
        rendered.write_text(self._cluster.kubectl("kustomize", folder))
        self._cluster.apply(rendered)
        objects = self._cluster.get("--filename", rendered)
        (self.namespace,) = {each["metadata"]["namespace"] for each in objects if each["kind"] == "Deployment"}
        return objects

    def _rendered(self, folder: Path) -> Path:
        return folder.parent / f"{folder.name}.yaml"

    def _namespaces(self) -> set[str]:
        return {each["metadata"]["name"] for each in self._cluster.get("namespace")}


def fill_in_secrets(examples: Path, folder: Path) -> None:
    """Copy the examples of secrets, with a value for each variable. No pod reads them."""
    shutil.copytree(examples, folder, dirs_exist_ok=True)
    for file in folder.glob("*.env"):
        file.write_text(re.sub(r"^([A-Z0-9_]+)=$", r"\1=of-a-try", file.read_text(), flags=re.MULTILINE))


def other_image(kustomization: str) -> str:
    """Return a kustomization with another digest or tag of the image.

    Raises:
        Failed: it names none.
    """
    digest = f"sha256:{'1' * 64}"
    changed, count = re.subn(r"(digest: *)\S+", rf"\g<1>{digest}", kustomization)
    if not count:
        changed, count = re.subn(r"(newTag: *)\S+", r"\g<1>another", kustomization)
    if not count:
        raise Failed("the overlay names neither a digest nor a tag of the image")
    return changed


def declared_part(stored: Object) -> Object:
    """Return an object without its status and the metadata that the API server and controllers write."""
    metadata = {
        name: value for name, value in stored["metadata"].items() if name not in ("resourceVersion", "managedFields")
    }
    annotations = {
        name: value for name, value in metadata.get("annotations", {}).items() if name not in CONTROLLERS_OWN
    }
    return {
        **{name: value for name, value in stored.items() if name != "status"},
        "metadata": metadata | {"annotations": annotations},
    }


def differing(before: dict[str, Object], after: dict[str, Object]) -> list[str]:
    """Return the names whose objects differ, or that only one of both has."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def group_of(stored: Object) -> str:
    """Return the API group of an object; empty for the core group."""
    return str(stored["apiVersion"]).rpartition("/")[0]
