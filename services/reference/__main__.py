"""``make reference`` writes the reference beside the gateway, which serves it as it is."""

import json
from pathlib import Path
from typing import Final

from services.reference.document import document

WRITTEN: Final = Path(__file__).parent.parent / "gateway" / "openapi.json"


def text() -> str:
    """The document, a line for each of its parts, so that a change of the API is seen as one."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    WRITTEN.write_text(text(), "utf-8")
