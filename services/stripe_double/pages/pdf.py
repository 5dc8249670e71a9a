"""Smallest possible PDF: lines of text on A4 pages, in Helvetica (ISO 32000-1, 7.5 and 9.6.2)."""

from collections.abc import Sequence

LINES_PER_PAGE = 50
MAX_CHARACTERS = 95
"""Characters of a line that fit on a page at 10 points; the rest is cut off."""


def text_pdf(lines: Sequence[str]) -> bytes:
    """Return a PDF of lines of text. Characters that Windows-1252 lacks become question marks."""
    pages = [lines[start : start + LINES_PER_PAGE] for start in range(0, max(1, len(lines)), LINES_PER_PAGE)]
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>"
        % (b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages))), len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, shown in enumerate(pages):
        text = b"\n".join(b"(%b) Tj T*" % _escaped(line) for line in shown)
        stream = b"BT /F1 10 Tf 14 TL 56 786 Td\n%b\nET" % text
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >>"
            b" /Contents %d 0 R >>" % (5 + 2 * number),
            b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
        ]
    written, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return written + (
        b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (size, table, size, len(written))
    )


def _escaped(line: str) -> bytes:
    text = line.replace("\N{MINUS SIGN}", "-")[:MAX_CHARACTERS].encode("cp1252", "replace")
    return text.replace(b"\\", rb"\\").replace(b"(", rb"\(").replace(b")", rb"\)")
