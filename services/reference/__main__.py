"""``make reference``: write the OpenAPI document, which the gateway serves unchanged, and the generated manifests."""

import json
from pathlib import Path
from typing import Final

from services.reference.document import document
from services.reference.manifests import manifests

OUTPUT: Final = Path(__file__).parent.parent / "gateway" / "openapi.json"


def document_text() -> str:
    """The OpenAPI document as JSON, indented so that diffs of the file are readable."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in {OUTPUT: document_text(), **manifests()}.items():
        path.write_text(text, "utf-8")
