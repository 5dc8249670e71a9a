"""``make reference``: write the OpenAPI document to the gateway's folder, from where it is served unchanged."""

import json
from pathlib import Path
from typing import Final

from services.reference.document import document

OUTPUT: Final = Path(__file__).parent.parent / "gateway" / "openapi.json"


def document_text() -> str:
    """The OpenAPI document as JSON, indented so that diffs of the file are readable."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(document_text(), "utf-8")
