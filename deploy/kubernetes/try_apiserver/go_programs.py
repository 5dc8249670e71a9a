"""Programs of Kubernetes, built from Go modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from steps import run, step

PROGRAMS = {
    "etcd": ("go.etcd.io/etcd/server/v3/etcdmain", "etcdmain.Main(os.Args)"),
    "kube-apiserver": ("k8s.io/kubernetes/cmd/kube-apiserver/app", "os.Exit(cli.Run(app.NewAPIServerCommand()))"),
    "kube-controller-manager": (
        "k8s.io/kubernetes/cmd/kube-controller-manager/app",
        "os.Exit(cli.Run(app.NewControllerManagerCommand()))",
    ),
    "kubectl": ("k8s.io/kubectl/pkg/cmd", "os.Exit(cli.Run(cmd.NewDefaultKubectlCommand()))"),
}
"""Programs by name: the Go package of the command, and the statement that runs it."""


def go_mod(kubernetes: str, requirements: dict[str, Any]) -> str:
    """Return a go.mod for the programs, from the parsed go.mod of k8s.io/kubernetes.

    That one replaces its staging modules by folders, which counts in the main module only. The published versions of
    the staging modules, v0.X.Y for Kubernetes 1.X.Y, have the same content.
    """
    staging = [each["Old"]["Path"] for each in requirements["Replace"]]
    versions = {each["Path"]: each["Version"] for each in requirements["Require"]}
    versions["go.etcd.io/etcd/server/v3"] = versions["go.etcd.io/etcd/client/v3"]
    return "\n".join(
        [
            "module nest.test/apiserver",
            f"go {requirements['Go']}",
            f"require k8s.io/kubernetes v{kubernetes}",
            *(f"replace {path} => {path} v0{kubernetes.removeprefix('1')}" for path in staging),
            *(f"require {path} {version}" for path, version in versions.items() if path not in staging),
            "",
        ]
    )


def main_go(package: str, statement: str) -> str:
    """Return the main package of a program."""
    used = [package, "os", *(["k8s.io/component-base/cli"] if "cli." in statement else [])]
    imports = "".join(f"\t{json.dumps(each)}\n" for each in used)
    return f"package main\n\nimport (\n{imports})\n\nfunc main() {{ {statement} }}\n"


def build(kubernetes: str, cache: Path) -> Path:
    """Build the programs that the cache does not have; return their folder."""
    programs = cache / f"v{kubernetes}"
    with step(f"build of Kubernetes {kubernetes} in {programs}") as notes:
        missing = [name for name in PROGRAMS if not (programs / name).exists()]
        if not missing:
            notes.append("built before")
            return programs
        work = programs / "source"
        work.mkdir(parents=True, exist_ok=True)
        downloaded = json.loads(run("go", "mod", "download", "-json", f"k8s.io/kubernetes@v{kubernetes}", folder=work))
        requirements = json.loads(run("go", "mod", "edit", "-json", downloaded["GoMod"]))
        (work / "go.mod").write_text(go_mod(kubernetes, requirements))
        minor = kubernetes.split(".")[1]
        version = {"gitVersion": f"v{kubernetes}", "gitMajor": "1", "gitMinor": minor}
        flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in version.items())
        for name in missing:
            (work / name).mkdir(exist_ok=True)
            (work / name / "main.go").write_text(main_go(*PROGRAMS[name]))
            # -mod=mod adds the checksums to go.sum, compared with the checksum database.
            options = ("-mod=mod", "-buildvcs=false", "-trimpath", "-p", "2", "-ldflags", f"-s -w {flags}")
            run(
                "nice", "go", "build", *options, "-o", work / f"{name}.built", f"./{name}", folder=work, CGO_ENABLED="0"
            )
            # An interrupted build leaves no program.
            (work / f"{name}.built").rename(programs / name)
        shutil.rmtree(work)
        notes.append(f"{len(missing)} programs")
    return programs
