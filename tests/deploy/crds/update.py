"""Write the definitions of the custom resources that the components use, from the modules of their operators.

Run ``.venv/bin/python -m tests.deploy.crds.update`` after a change of ``MODULES``; it needs Go. The definitions are
those of the modules without descriptions, status, printer columns and other versions.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from tests.deploy.crds import strimzi

FOLDER: Final = Path(__file__).parent
APACHE: Final = "Apache-2.0, as this project"
MODULES: Final = {
    "github.com/kedacore/keda/v2@v2.21.0": {
        "license": APACHE,
        "files": [
            "config/crd/bases/keda.sh_scaledobjects.yaml",
            "config/crd/bases/keda.sh_triggerauthentications.yaml",
        ],
        "kinds": ["ScaledObject", "TriggerAuthentication"],
    },
    "github.com/external-secrets/external-secrets@v1.3.2": {
        "license": APACHE,
        "files": ["config/crds/bases/external-secrets.io_externalsecrets.yaml"],
        "kinds": ["ExternalSecret"],
    },
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": {
        "license": APACHE,
        "files": [
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ],
        "kinds": ["PodMonitor", "PrometheusRule"],
    },
    "github.com/traefik/traefik/v3@v3.7.13": {
        "license": "MIT, Copyright (c) 2016-2020 Containous SAS; 2020-2025 Traefik Labs, see LICENSE.traefik",
        "files": ["docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml"],
        "kinds": ["IngressRoute", "Middleware", "ServersTransport"],
    },
}


def without_texts(schema: Any) -> Any:
    """Return a schema without its descriptions; a property may have that name."""
    if isinstance(schema, list):
        return [without_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: without_texts(each)
        for name, each in schema.items()
        if not (name == "description" and isinstance(each, str))
    }


def trimmed(definition: dict[str, Any], source: str, license_: str) -> dict[str, Any]:
    """Return a definition with its stored version only."""
    spec = definition["spec"]
    (version,) = [each for each in spec["versions"] if each["storage"]]
    schema = without_texts(version["schema"])
    schema["openAPIV3Schema"]["properties"].pop("status", None)
    notes = {"nest.example.com/source": source, "nest.example.com/license": license_}
    return {
        "apiVersion": definition["apiVersion"],
        "kind": definition["kind"],
        "metadata": {"name": definition["metadata"]["name"], "annotations": notes},
        "spec": {
            "group": spec["group"],
            "names": spec["names"],
            "scope": spec["scope"],
            "versions": [{"name": version["name"], "served": True, "storage": True, "schema": schema}],
        },
    }


def main() -> None:
    """Download the modules and write one file for each kind."""
    for module, wanted in MODULES.items():
        command = ["go", "mod", "download", "-json", module]
        downloaded = subprocess.run(command, check=True, capture_output=True, text=True)
        folder = Path(json.loads(downloaded.stdout)["Dir"])
        for file in wanted["files"]:
            for definition in yaml.safe_load_all((folder / file).read_text()):
                if definition and definition["spec"]["names"]["kind"] in wanted["kinds"]:
                    write(trimmed(definition, module, str(wanted["license"])))
    for definition in strimzi.definitions():
        write(trimmed(definition, strimzi.SOURCE, APACHE))


def write(definition: dict[str, Any]) -> None:
    """Write a definition to the file of its kind."""
    text = json.dumps(definition, separators=(",", ":"))
    (FOLDER / f"{definition['spec']['names']['kind']}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
