"""A control plane on loopback: etcd, kube-apiserver and kube-controller-manager."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from steps import Failed, run, until


class ControlPlane:
    """A control plane on loopback, with all data in one folder."""

    def __init__(self, programs: Path, folder: Path, stack: ExitStack) -> None:
        self._programs = programs
        self._folder = folder
        self._stack = stack
        self._config = folder / "kubeconfig"

    def start(self) -> None:
        """Start etcd, the API server and the controller manager, and wait until they are ready.

        Raises:
            Failed: one of them ends, or is not ready in time.
        """
        store, peers, api, manager = (_free_port() for _ in range(4))
        etcd = {
            "data-dir": self._folder / "etcd",
            "listen-client-urls": f"http://127.0.0.1:{store}",
            "advertise-client-urls": f"http://127.0.0.1:{store}",
            "listen-peer-urls": f"http://127.0.0.1:{peers}",
            "unsafe-no-fsync": "true",
        }
        self._launch("etcd", etcd)
        token = secrets.token_hex(24)
        (self._folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        run("openssl", "genrsa", "-out", self._folder / "accounts.key", "2048")
        self._write_admission()
        apiserver = {
            "etcd-servers": f"http://127.0.0.1:{store}",
            "bind-address": "127.0.0.1",
            "secure-port": api,
            "cert-dir": self._folder / "certificates",
            "token-auth-file": self._folder / "tokens.csv",
            "authorization-mode": "RBAC",
            # As in other clusters, so that the pod security standard is what refuses privileges.
            "allow-privileged": "true",
            "admission-control-config-file": self._folder / "admission.json",
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.96.0.0/16",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._folder / "accounts.key",
            "service-account-signing-key-file": self._folder / "accounts.key",
        }
        server = self._launch("kube-apiserver", apiserver)
        self._write_config(f"https://127.0.0.1:{api}", token)
        until(lambda: self._unready(server))
        controllers = {
            "kubeconfig": self._config,
            "authentication-kubeconfig": self._config,
            "authorization-kubeconfig": self._config,
            "service-account-private-key-file": self._folder / "accounts.key",
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
            "secure-port": manager,
            "cert-dir": self._folder / "certificates",
        }
        self._launch("kube-controller-manager", controllers)
        until(lambda: "" if self.get("serviceaccount", "--namespace", "default") else "no controller runs")

    def kubectl(self, *words: str | Path, stdin: str | None = None) -> str:
        """Run kubectl and return its output.

        Raises:
            Failed: kubectl or the API server refused it.
        """
        return run(self._programs / "kubectl", "--kubeconfig", self._config, *words, stdin=stdin)

    def get(self, *words: str | Path) -> list[dict[str, Any]]:
        """Return objects."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "--output", "json", *words))
        return list(found["items"]) if "items" in found else [found]

    def apply(self, file: Path | str, *, stdin: str | None = None) -> None:
        """Apply objects by server-side apply with strict field validation."""
        self.kubectl("apply", "--server-side", "--validate=strict", "--filename", file, stdin=stdin)

    def _unready(self, server: subprocess.Popen[bytes]) -> str:
        if server.poll() is not None:
            raise Failed(f"kube-apiserver ended: {(self._folder / 'kube-apiserver.log').read_text()[-2000:]}")
        try:
            self.kubectl("get", "--raw", "/readyz")
        except Failed as failure:
            return str(failure)
        return ""

    def _launch(self, name: str, options: dict[str, Any]) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self._folder / f"{name}.log").open("wb"))
        command = [str(self._programs / name), *(f"--{option}={value}" for option, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 -- the programs that it has built
        self._stack.callback(_stop, process)
        return process

    def _write_admission(self) -> None:
        levels = dict.fromkeys(("enforce", "audit", "warn"), "restricted")
        versions = {f"{level}-version": "latest" for level in levels}
        security = {
            "apiVersion": "pod-security.admission.config.k8s.io/v1",
            "kind": "PodSecurityConfiguration",
            "defaults": levels | versions,
        }
        admission = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{"name": "PodSecurity", "configuration": security}],
        }
        (self._folder / "admission.json").write_text(json.dumps(admission))

    def _write_config(self, server: str, token: str) -> None:
        # The API server's certificate is its own, made at its start.
        authority = str(self._folder / "certificates" / "apiserver.crt")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "try", "cluster": {"server": server, "certificate-authority": authority}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "try", "context": {"cluster": "try", "user": "admin"}}],
            "current-context": "try",
        }
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(config))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
