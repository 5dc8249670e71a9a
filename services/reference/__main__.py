"""``make reference``: write the OpenAPI and AsyncAPI documents, clients, settings page, example and manifests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from services.reference import dashboards, events
from services.reference.document import document
from services.reference.manifests import manifests
from services.reference.settings_page import example, page

ROOT: Final = Path(__file__).parents[2]
OUTPUT: Final = ROOT / "services/gateway/openapi.json"
EVENTS: Final = ROOT / "services/gateway/asyncapi.json"
SAMPLES: Final = ROOT / "tests/shared/samples"
SETTINGS_PAGE: Final = ROOT / "docs/settings.md"
EXAMPLE: Final = ROOT / "deploy/example.env"


def document_text() -> str:
    """The OpenAPI document as JSON."""
    return indented(document())


def indented(found: object) -> str:
    """A document as JSON, indented so that diffs of the file are readable."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    generated = {
        OUTPUT: document_text(),
        EVENTS: indented(events.document(SAMPLES)),
        SETTINGS_PAGE: page(),
        EXAMPLE: example(),
        **manifests(),
        **dashboards.files(),
    }
    for path, text in generated.items():
        path.write_text(text, "utf-8")
    for generator in sorted(ROOT.glob("clients/*/generate*.py")):  # they read the document that was just written
        subprocess.run([sys.executable, generator], check=True)  # noqa: S603 -- our own programs
