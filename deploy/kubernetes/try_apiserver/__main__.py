"""Proof of the manifests on a real kube-apiserver, built from Go modules, on loopback.

    python3 deploy/kubernetes/try_apiserver [--kubernetes 1.34.4] [--cache FOLDER] [--keep]

Builds etcd, kube-apiserver, kube-controller-manager and kubectl once, into the cache folder; that needs Go, and takes
minutes. Then it starts them with a temporary folder and applies every overlay and component by server-side apply, with
strict field validation and with the pod security standard "restricted" for every namespace. Prints a line for each step
with its time in seconds; the exit code is 1 if one fails. There is no kubelet and no scheduler: pods are created and
admitted, and stay Pending. Needs openssl. docs/kubernetes.md describes the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from control_plane import ControlPlane
from go_programs import build
from overlay_proof import OverlayProof
from steps import Failed, step

FOLDER = Path(__file__).resolve().parents[1]
DEFINITIONS = FOLDER.parents[1] / "tests/deploy/crds"
"""Custom resource definitions of the operators' releases."""
NAMESPACE = "try-refusals"


def main() -> int:
    """Build, start, prove, and stop; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubernetes", default="1.34.4", help="version of Kubernetes, 1.X.Y")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nest-try-apiserver"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the built programs")
    parser.add_argument(
        "--keep", action="store_true", help="keep the temporary folder, with logs and rendered overlays"
    )
    arguments = parser.parse_args()
    # A stop by a signal must end the processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="nest-try-apiserver-"))
    try:
        with ExitStack() as stack:
            prove(build(arguments.kubernetes, arguments.cache.resolve()), folder, stack)
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    print(f"all steps passed in {time.monotonic() - started:.0f} s")
    return 0


def prove(programs: Path, folder: Path, stack: ExitStack) -> None:
    """Start the control plane and take every step.

    Raises:
        Failed: a step failed.
    """
    cluster = ControlPlane(programs, folder, stack)
    with step("start of etcd, kube-apiserver and kube-controller-manager") as notes:
        cluster.start()
        notes.append(json.loads(cluster.kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"])
    with step("the server refuses unknown fields and pods that are not restricted"):
        _expect_refusals(cluster)
    with step("custom resource definitions of the operators") as notes:
        notes.append(f"{_define_kinds(cluster)} kinds")
    manifests = folder / "kubernetes"
    shutil.copytree(FOLDER, manifests, ignore=shutil.ignore_patterns("secrets", "__pycache__"))
    overlays = sorted(each for each in (manifests / "overlays").iterdir() if each.is_dir())
    for each in overlays:
        proof = OverlayProof(cluster, each)
        proof.prove()
        if each == overlays[0]:
            _prove_components(proof, manifests / "components", (each / "kustomization.yaml").read_text())
        proof.delete()


def _prove_components(proof: OverlayProof, components: Path, kustomization: str) -> None:
    """Apply each component that the overlay does not have already."""
    included = set(re.findall(r"components/([a-z-]+)", kustomization))
    for each in sorted(components.iterdir()):
        if each.is_dir() and each.name not in included:
            proof.prove_component(each)


def _define_kinds(cluster: ControlPlane) -> int:
    """Apply the custom resource definitions of the operators; return their number."""
    files = sorted(DEFINITIONS.glob("*.json"))
    for file in files:
        cluster.apply(file)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    return len(files)


def _expect_refusals(cluster: ControlPlane) -> None:
    """Check that the server is as strict as the proof says.

    Raises:
        Failed: it accepts an unknown field, or a pod with privileges.
    """
    cluster.kubectl("create", "namespace", NAMESPACE)
    metadata = {"name": "refused", "namespace": NAMESPACE}
    pod = {"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]}
    for refused, reason in (
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "dat": {}}, "dat"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}, 'violates PodSecurity "restricted'),
    ):
        try:
            cluster.apply("-", stdin=json.dumps(refused))
        except Failed as failure:
            if reason not in str(failure):
                raise
        else:
            raise Failed(f"the server accepted {json.dumps(refused)}")
    cluster.kubectl("delete", "namespace", NAMESPACE)


if __name__ == "__main__":
    sys.exit(main())
