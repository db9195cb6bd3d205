"""
A fax as PDF, without loss: its coded strips go in as they are, under PDF's name for T.4 and T.6.

Nothing is decoded, so nothing of a hostile file reaches a decoder here, and the result is as large
as the fax. Pure: bytes in, bytes out (ISO 32000-1, 7.4.6 CCITTFaxDecode).
"""

from collections.abc import Iterator, Sequence

from vault.domain.tiff_fax import G4, Page

_POINTS_PER_INCH = 72.0


def fax_pdf(data: bytes, pages: Sequence[Page]) -> bytes:
    """Return the PDF of a TIFF-F file whose pages were read from it."""
    objects: list[bytes] = [b"", b""]
    kids = []
    for page in pages:
        images = list(_images(data, page))
        first = len(objects) + 1
        objects += images
        objects.append(_stream(b"", _drawing(page)))
        objects.append(_page_object(page, first, len(images), contents=len(objects)))
        kids.append(len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    listed = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%b] >>" % (len(kids), listed)
    return _file(objects)


def _images(data: bytes, page: Page) -> Iterator[bytes]:
    """Yield an image for each strip, since each begins its coding anew."""
    k = -1 if page.compression == G4 else int(page.two_dimensional)
    for number in range(len(page.strips)):
        rows = min(page.rows_per_strip, page.height - number * page.rows_per_strip)
        # The rows are counted: an end-of-block code may be missing, or stand before the strip ends.
        parameters = b"<< /K %d /Columns %d /Rows %d /EndOfBlock false%b%b >>" % (
            k,
            page.width,
            rows,
            b"" if k < 0 else b" /EndOfLine true",
            b"" if page.white_is_zero else b" /BlackIs1 true",
        )
        head = (
            b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 1 "
            b"/ColorSpace /DeviceGray /Filter /CCITTFaxDecode /DecodeParms %b"
        ) % (page.width, rows, parameters)
        yield _stream(head, page.strip(data, number))


def _size(page: Page) -> tuple[float, float]:
    return (
        page.width / page.dpi[0] * _POINTS_PER_INCH,
        page.height / page.dpi[1] * _POINTS_PER_INCH,
    )


def _drawing(page: Page) -> bytes:
    """Return the operators that put the strips below one another."""
    width, height = _size(page)
    lines = []
    for number in range(len(page.strips)):
        top = number * page.rows_per_strip
        rows = min(page.rows_per_strip, page.height - top)
        tall = height * rows / page.height
        below = height * (page.height - top - rows) / page.height
        lines.append(f"q {width:.4f} 0 0 {tall:.4f} 0 {below:.4f} cm /S{number} Do Q")
    return "\n".join(lines).encode()


def _page_object(page: Page, first: int, images: int, *, contents: int) -> bytes:
    width, height = _size(page)
    named = " ".join(f"/S{number} {first + number} 0 R" for number in range(images))
    return (
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.4f} {height:.4f}] "
        f"/Resources << /XObject << {named} >> >> /Contents {contents} 0 R >>"
    ).encode()


def _stream(head: bytes, content: bytes) -> bytes:
    return b"<< %b /Length %d >>\nstream\n%b\nendstream" % (head, len(content), content)


def _file(objects: Sequence[bytes]) -> bytes:
    parts, at, table = [b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"], 15, []
    for number, body in enumerate(objects, start=1):
        part = b"%d 0 obj\n%b\nendobj\n" % (number, body)
        table.append(b"%010d 00000 n \n" % at)
        parts.append(part)
        at += len(part)
    parts.append(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    parts += table
    parts.append(
        b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, at)
    )
    return b"".join(parts)
