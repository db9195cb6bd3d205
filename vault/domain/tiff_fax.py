"""
TIFF-F, the files of fax machines (RFC 2306, TIFF 6.0, T.4, T.6): read and checked, never decoded.

Every offset is held against the file before it is followed. The bytes of all directories and of
their values, each counted as often as it is read, are at most those of the file, and so are the
bytes of all strips: the work is bounded by the file's size, whatever overlaps what. So any bytes at
all end in pages or in a refusal. Nothing is decompressed: a page is where its coded strips lie and
how they are coded.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vault.errors import ContentRefusedError

#: A0 at 400 dots per inch is 13,244 dots wide; T.4 ends at 4,864. Fax paper is a roll: the height
#: is bounded by what a viewer can bear.
WIDTH_MAX, HEIGHT_MAX = 4864, 32_768
STRIPS_MAX, ENTRIES_MAX = 4096, 256
#: In all pages together: each strip is an image of its own in the PDF.
STRIPS_IN_ALL_MAX = 65_536
G3, G4 = 3, 4

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _OFFSETS, _SAMPLES, _ROWS, _COUNTS = 266, 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _T4_OPTIONS, _UNIT = 282, 283, 292, 296
#: What HylaFAX writes of the call: seconds on the line, and the T.30 frame that set its parameters.
_RECEIVE_SECONDS = 34910
_WANTED = frozenset(
    {
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _OFFSETS, _SAMPLES),
        *(_ROWS, _COUNTS, _X_RESOLUTION, _Y_RESOLUTION, _T4_OPTIONS, _UNIT, _RECEIVE_SECONDS),
    }
)
_BYTE, _SHORT, _LONG, _RATIONAL, _FLOAT, _DOUBLE = 1, 3, 4, 5, 11, 12
_SIZES = {_BYTE: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8}
_LETTERS = {_BYTE: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I"}
#: Some drivers write a resolution as a floating-point number.
_RESOLUTION_SIZES, _RESOLUTION_LETTERS = {_FLOAT: 4, _DOUBLE: 8}, {_FLOAT: "f", _DOUBLE: "d"}
_CENTIMETRE = 3
#: R8 by 3.85 and 7.7 lines a millimetre is what T.4 calls standard and fine, here per inch.
_DEFAULT_DPI = (204.0, 196.0)
_DPI_MIN, _DPI_MAX = 50.0, 1200.0

#: End of line.
_CODE = "000000000001"
#: Turns the bits of each byte round.
REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its dots, their number per inch, how it is coded and where its strips lie."""

    width: int
    height: int
    dpi: tuple[float, float]
    compression: int
    two_dimensional: bool
    white_is_zero: bool
    lowest_bit_first: bool
    rows_per_strip: int
    strips: tuple[tuple[int, int], ...]
    receive_seconds: int | None

    def strip(self, data: bytes, number: int) -> bytes:
        """Return a strip of the file, its bits with the highest first."""
        offset, size = self.strips[number]
        coded = data[offset : offset + size]
        return coded.translate(REVERSED) if self.lowest_bit_first else coded


def read_pages(data: bytes, pages_max: int) -> list[Page]:
    """Return the pages of a TIFF-F file; raises `ContentRefusedError` with the reason."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None:
        raise _refused("its header is not that of a TIFF")
    try:
        pages = list(_pages(data, order, pages_max))
    except struct.error:
        raise _refused("it is cut off") from None
    if not pages:
        raise _refused("it has no pages")
    return pages


def _pages(data: bytes, order: str, pages_max: int) -> Iterator[Page]:
    numbers = _Numbers(data, order)
    offset = numbers.next_directory
    seen, coded, strips = set[int](), 0, 0
    while offset:
        if offset in seen:
            raise _refused("its directories form a loop")
        if len(seen) == pages_max:
            raise _refused(f"it has more than {pages_max} pages")
        seen.add(offset)
        tags, offset = _directory(numbers, offset)
        page = _page(data, tags, len(seen))
        # Else a small file would be many times as large as PDF, and as long to read.
        coded += sum(size for _, size in page.strips)
        strips += len(page.strips)
        if coded > len(data):
            raise _refused("its strips overlap")
        if strips > STRIPS_IN_ALL_MAX:
            raise _refused(f"it has more than {STRIPS_IN_ALL_MAX} strips")
        yield page


class _Numbers:
    """The numbers of a file, read so often that their bytes are at most those of the file."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data, self._order, self._left = data, order, len(data)
        (self.next_directory,) = self.take("I", 4)

    def take(self, letters: str, offset: int) -> tuple[Any, ...]:
        """Return the numbers at an offset; refuses the file where too many were read before."""
        self._left -= struct.calcsize(self._order + letters)
        if self._left < 0:
            raise _refused("its directories overlap")
        return struct.unpack_from(self._order + letters, self._data, offset)


def _directory(numbers: _Numbers, offset: int) -> tuple[dict[int, list[int]], int]:
    """Return the wanted tags of a directory, and where the next one is."""
    (count,) = numbers.take("H", offset)
    if not 1 <= count <= ENTRIES_MAX:
        raise _refused(f"a directory has {count} entries; it may have 1 to {ENTRIES_MAX}")
    tags = dict[int, list[int]]()
    for at in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, length = numbers.take("HHI", at)
        if tag not in _WANTED:
            continue
        if tag in tags:
            raise _refused(f"a directory has tag {tag} twice")
        sizes, letters = _SIZES, _LETTERS
        if tag in {_X_RESOLUTION, _Y_RESOLUTION}:
            sizes, letters = sizes | _RESOLUTION_SIZES, letters | _RESOLUTION_LETTERS
        if kind not in sizes or not 1 <= length <= STRIPS_MAX:
            raise _refused(
                f"tag {tag} has {length} values of type {kind}; it may have 1 to {STRIPS_MAX} of "
                f"type {', '.join(str(known) for known in sizes)}"
            )
        place = at + 8
        if sizes[kind] * length > 4:
            (place,) = numbers.take("I", place)
        several = length * (2 if kind == _RATIONAL else 1)
        values = numbers.take(f"{several}{letters[kind]}", place)
        tags[tag] = list(_ratio(values[0]) if kind in _RESOLUTION_SIZES else values)
    (following,) = numbers.take("I", offset + 2 + 12 * count)
    return tags, following


def _ratio(value: float) -> tuple[int, int]:
    """Return a floating-point number as a rational one; what is no number as 0/0."""
    try:
        return value.as_integer_ratio()
    except (OverflowError, ValueError):
        return 0, 0


def _page(data: bytes, tags: dict[int, list[int]], number: int) -> Page:
    def one(tag: int, default: int | None = None) -> int:
        found = tags.get(tag)
        if found is None and default is None:
            raise _refused(f"page {number} has no tag {tag}")
        return found[0] if found else default or 0

    width, height, compression = one(_WIDTH), one(_HEIGHT), one(_COMPRESSION, 1)
    if not 1 <= width <= WIDTH_MAX or not 1 <= height <= HEIGHT_MAX:
        raise _refused(
            f"page {number} is {width} by {height} dots; "
            f"a fax is at most {WIDTH_MAX} by {HEIGHT_MAX}"
        )
    if compression not in (G3, G4):
        raise _refused(f"page {number} is not coded as T.4 or T.6 (G3 or G4)")
    if one(_BITS, 1) != 1 or one(_SAMPLES, 1) != 1:
        raise _refused(f"page {number} is not black and white")
    fill, photometric = one(_FILL_ORDER, 1), one(_PHOTOMETRIC, 0)
    if fill not in (1, 2) or photometric not in (0, 1):
        raise _refused(f"page {number} has no known fill order or photometric interpretation")
    rows = min(one(_ROWS, height), height)
    strips = tuple(zip(tags.get(_OFFSETS, ()), tags.get(_COUNTS, ()), strict=False))
    if rows < 1 or len(tags.get(_OFFSETS, ())) != len(tags.get(_COUNTS, ())):
        raise _refused(f"page {number} does not say where its strips lie")
    if len(strips) != -(-height // rows):
        raise _refused(f"page {number} has {len(strips)} strips for {height} lines")
    if any(size < 1 or offset < 8 or offset + size > len(data) for offset, size in strips):
        raise _refused(f"page {number} is cut off")
    page = Page(
        width=width,
        height=height,
        dpi=_resolution(tags),
        compression=compression,
        two_dimensional=compression == G3 and bool(one(_T4_OPTIONS, 0) & 1),
        white_is_zero=photometric == 0,
        lowest_bit_first=fill == 2,
        rows_per_strip=rows,
        strips=strips,
        receive_seconds=one(_RECEIVE_SECONDS) if _RECEIVE_SECONDS in tags else None,
    )
    _check_fill_order(data, page, number)
    return page


def _resolution(tags: dict[int, list[int]]) -> tuple[float, float]:
    """Return dots per inch; what is missing or absurd is taken as T.4's fine resolution."""
    scale = 2.54 if tags.get(_UNIT, [2])[0] == _CENTIMETRE else 1.0
    found = []
    for tag in (_X_RESOLUTION, _Y_RESOLUTION):
        above, below = (*tags.get(tag, ()), 0, 0)[:2]
        found.append(above / below * scale if below else 0.0)
    x, y = found
    sane = _DPI_MIN <= x <= _DPI_MAX and _DPI_MIN <= y <= _DPI_MAX
    return (x, y) if sane else _DEFAULT_DPI


def _check_fill_order(data: bytes, page: Page, number: int) -> None:
    """
    Refuse a page whose bits run the other way than it says.

    T.4 begins each page with an end-of-line code, T.6 ends each strip with two: where one is found
    in the other order only, a receiver would print noise.
    """
    strip = page.strip(data, 0)
    found, turned = _has_code(page, strip), _has_code(page, strip.translate(REVERSED))
    if turned and not found:
        raise _refused(f"the bits of page {number} do not have the fill order that it says")
    if page.compression == G3 and not found:
        raise _refused(f"page {number} does not begin with T.4's end-of-line code")


def _has_code(page: Page, strip: bytes) -> bool:
    """Whether a strip begins (T.4) or ends (T.6) with end-of-line: eleven zeros and a one."""
    coded = strip[:8] if page.compression == G3 else strip[-5:]
    bits = f"{int.from_bytes(coded):0{8 * len(coded)}b}"
    if page.compression == G3:
        # Fill bits before the first code are zeros, too.
        return bits.find("1") >= _CODE.find("1")
    return bits.rstrip("0").endswith(2 * _CODE)


def _refused(reason: str) -> ContentRefusedError:
    return ContentRefusedError(f"the fax is malformed: {reason}")


# ---- A fax as PDF, without loss: its coded strips go in as they are, under PDF's name for T.4 and
# T.6.
#
# Nothing is decoded, so nothing of a hostile file reaches a decoder here, and the result is as
# large as the fax. Pure: bytes in, bytes out (ISO 32000-1, 7.4.6 CCITTFaxDecode).

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
