"""The generated files are those of the document."""

from __future__ import annotations

from generate import generated
from openapi_document import Document


def test_generated_files_are_those_of_the_document() -> None:
    texts = generated(Document())

    assert [path.name for path, text in texts.items() if path.read_text("utf-8") != text] == []
