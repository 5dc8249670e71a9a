"""The generated files are those of the document."""

from __future__ import annotations

import json

from generate import DOCUMENT, generated


def test_generated_files_are_those_of_the_document() -> None:
    texts = generated(json.loads(DOCUMENT.read_text("utf-8")))

    assert [path.name for path, text in texts.items() if path.read_text("utf-8") != text] == []
