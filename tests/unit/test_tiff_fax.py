"""TIFF-F as fax machines write it, and as nobody should."""

import io
import struct
import subprocess
from contextlib import suppress
from typing import cast

import pikepdf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from PIL.TiffImagePlugin import TiffImageFile

from tests.fixtures_server import SAMPLES
from tests.fixtures_telefax import G3_STRIP, G4_STRIP, loop, tiff
from vault.domain.tiff_fax import (
    HEIGHT_MAX,
    REVERSED,
    STRIPS_IN_ALL_MAX,
    STRIPS_MAX,
    WIDTH_MAX,
    fax_pdf,
    read_pages,
)
from vault.errors import ContentRefusedError

FAXES = ("fax-1p-g4.tif", "fax-2p-g3.tif", "fax-3p-g4.tif")


@pytest.mark.parametrize("name, pages", list(zip(FAXES, (1, 2, 3), strict=True)))
def test_specimens_are_read(name, pages):
    """Each specimen has as many pages as it says, all as wide as a fax."""
    found = read_pages((SAMPLES / name).read_bytes(), 500)
    assert [page.width for page in found] == [1728] * pages
    assert found[0].dpi == (204.0, 196.0)


def images_of(pdf):
    """Return each page of the PDF, put together from its strips, through another decoder."""
    pages = []
    with pikepdf.open(io.BytesIO(pdf)) as opened:
        for page in opened.pages:
            drawn = page.Resources.XObject
            names = sorted(drawn.keys(), key=lambda name: int(name[2:]))
            images = [pikepdf.PdfImage(cast("pikepdf.Stream", drawn[n])) for n in names]
            strips = [image.as_pil_image().convert("L") for image in images]
            whole = Image.new("L", (strips[0].width, sum(strip.height for strip in strips)))
            top = 0
            for strip in strips:
                whole.paste(strip, (0, top))
                top += strip.height
            pages.append(whole)
    return pages


def assert_same(data):
    pdf = fax_pdf(data, read_pages(data, 500))
    original = TiffImageFile(io.BytesIO(data))
    pages = images_of(pdf)
    assert len(pages) == original.n_frames
    for number, page in enumerate(pages):
        original.seek(number)
        assert ImageChops.difference(original.convert("L"), page).getbbox() is None


@pytest.mark.parametrize("name", FAXES)
def test_a_fax_is_the_same_as_pdf(name):
    """Every dot of every page of the PDF is that of the fax."""
    assert_same((SAMPLES / name).read_bytes())


@pytest.mark.parametrize("order", ["lsb2msb", "msb2lsb"])
@pytest.mark.parametrize("rows", ["303", "9999"])
@pytest.mark.parametrize("coding", ["g3:1d", "g3:1d:fill", "g3:2d", "g3:2d:fill", "g4"])
def test_each_coding_is_the_same_as_pdf(tmp_path, coding, rows, order):
    """G3 in one and two dimensions and G4, in one strip or several, with the bits either way."""
    out = tmp_path / "out.tif"
    command = ["tiffcp", "-c", coding, "-r", rows, "-f", order, str(SAMPLES / FAXES[1]), str(out)]
    subprocess.run(command, check=True)
    assert_same(out.read_bytes())


@pytest.mark.parametrize("lines", ["98", "196"])
def test_both_resolutions_have_the_size_of_the_paper(tmp_path, lines):
    """Standard and fine resolution give a page as high as its lines are, not as many."""
    out = tmp_path / "out.tif"
    out.write_bytes((SAMPLES / FAXES[0]).read_bytes())
    subprocess.run(["tiffset", "-s", "283", lines, str(out)], check=True)
    data = out.read_bytes()
    with pikepdf.open(io.BytesIO(fax_pdf(data, read_pages(data, 500)))) as pdf:
        width, height = (float(side) for side in pdf.pages[0].MediaBox[2:])
    assert width == pytest.approx(1728 / 204 * 72, abs=0.01)
    assert height == pytest.approx(2200 / int(lines) * 72, abs=0.01)


BAD = {
    "a cut": ((SAMPLES / FAXES[1]).read_bytes()[:30_000], "cut off"),
    "a cut in its strips": (tiff({279: (4, 5000)}), "cut off"),
    "a cut in its directory": (tiff({})[:-9], "cut off"),
    "a loop": (loop(tiff({}, {})), "loop"),
    "a loop onto itself": (loop(tiff({})), "loop"),
    "no pages": (b"II*\x00\x00\x00\x00\x00", "no pages"),
    "no entries": (b"II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", "0 entries"),
    "no width": (tiff({256: None}), "no tag 256"),
    "a width of nothing": (tiff({256: (3, 0)}), "0 by 8"),
    "a width past the limit": (tiff({256: (3, WIDTH_MAX + 1)}), "dots"),
    "a height past the limit": (tiff({257: (4, HEIGHT_MAX + 1)}), "dots"),
    "absurd dimensions": (tiff({256: (4, 2**31), 257: (4, 2**31)}), "dots"),
    "colour": (tiff({277: (3, 3)}), "black and white"),
    "grey": (tiff({258: (3, 8)}), "black and white"),
    "no compression": (tiff({259: (3, 1)}), "not coded"),
    "JPEG": (tiff({259: (3, 7)}), "not coded"),
    "no known fill order": (tiff({266: (3, 3)}), "fill order"),
    "the wrong fill order": (tiff({266: (3, 2)}), "fill order"),
    "too few strips": (tiff({278: (3, 4)}), "1 strips for 8 lines"),
    "no rows": (tiff({278: (3, 0)}), "where its strips lie"),
    "strips in the header": (tiff({273: (4, 0)}), "cut off"),
    "T.4 without its first code": (tiff({259: (3, 3)}, strip=b"\xff\xff\xff\xff"), "end-of-line"),
    "T.4 with the wrong fill order": (
        tiff({259: (3, 3), 266: (3, 2)}, strip=G3_STRIP),
        "fill order",
    ),
    "another kind of TIFF": (b"II+\x00" + bytes(60), "header"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_malformed_fax_is_refused_with_a_reason(what):
    """What is wrong with a file is named, and none of it is a page."""
    data, reason = BAD[what]
    with pytest.raises(ContentRefusedError, match=reason):
        read_pages(data, 500)


def test_dimensions_at_the_limit_pass():
    """The widest and the highest page that are allowed are allowed."""
    sides = {256: (3, WIDTH_MAX), 257: (4, HEIGHT_MAX), 278: (4, HEIGHT_MAX)}
    (page,) = read_pages(tiff(sides), 500)
    assert (page.width, page.height) == (WIDTH_MAX, HEIGHT_MAX)


def test_pages_at_the_limit_pass_and_one_more_does_not():
    """A file is read as far as its pages may be many, and no further."""
    assert len(read_pages(tiff(*[{}] * 7), 7)) == 7
    for count in (8, 10_000):
        with pytest.raises(ContentRefusedError, match="more than 7 pages"):
            read_pages(tiff(*[{}] * count), 7)


def test_a_file_in_the_other_byte_order_is_the_same():
    """Motorola's byte order is read as Intel's."""
    little, big = (read_pages(tiff({}, order=order), 9)[0] for order in "<>")
    assert little == big


def test_bits_that_run_the_other_way_are_turned():
    """A strip with the lowest bit first comes out with the highest first."""
    data = tiff({259: (3, 3), 266: (3, 2)}, strip=G3_STRIP.translate(REVERSED))
    (page,) = read_pages(data, 9)
    assert page.strip(data, 0) == G3_STRIP


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"II*\x00\x08\x00\x00\x00", b"MM\x00*\0\0\0\x08"]),
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_pages_or_a_refusal(data, head):
    """Whatever comes, nothing but a refusal is raised."""
    try:
        pages = read_pages(head + data, 9)
    except ContentRefusedError:
        return
    fax_pdf(head + data, pages)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_an_altered_fax_is_pages_or_a_refusal(data):
    """A fax with some bytes changed is read, or refused; nothing else happens."""
    fax = bytearray((SAMPLES / FAXES[0]).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, 7) | st.integers(len(fax) - 260, len(fax) - 1))
        fax[place] = data.draw(st.integers(0, 255))
    try:
        pages = read_pages(bytes(fax), 9)
    except ContentRefusedError:
        return
    fax_pdf(bytes(fax), pages)


def test_a_file_whose_pages_share_their_strips_is_refused():
    """Pages that lie over one another would make the PDF larger than the fax, page by page."""
    strip = bytes(10_000) + G4_STRIP
    assert len(read_pages(tiff({}, strip=strip), 500)) == 1
    with pytest.raises(ContentRefusedError, match="overlap"):
        read_pages(tiff(*[{}] * 500, strip=strip), 500)


def test_strips_may_fill_the_file_and_not_more():
    """As many bytes in strips as the file has are no overlap yet; one more is."""
    strip = bytes(1000 - len(G4_STRIP)) + G4_STRIP
    size = len(tiff({}, {}, strip=strip)) // 2
    full = tiff({279: (4, size)}, {279: (4, size)}, strip=strip)
    assert len(full) == 2 * size
    assert len(read_pages(full, 9)) == 2
    with pytest.raises(ContentRefusedError, match="overlap"):
        read_pages(tiff({279: (4, size)}, {279: (4, size + 1)}, strip=strip), 9)


class Counted(bytes):
    """The bytes of a file, which count how many of them are read as numbers or cut out."""

    work = 0

    def __getitem__(self, place):
        found = super().__getitem__(place)
        if isinstance(place, slice):
            self.work += len(found)
        return found


@pytest.fixture
def counted(monkeypatch):
    """Have every byte that is unpacked out of a file counted, however often it is."""
    unpack_from = struct.unpack_from

    def counting(letters, data, offset=0):
        data.work += struct.calcsize(letters)
        return unpack_from(letters, data, offset)

    monkeypatch.setattr(struct, "unpack_from", counting)


def entry(tag, kind, length, value):
    return struct.pack("<HHII", tag, kind, length, value)


def crowded(directories, repeated, length, *, kind=5):
    """Return a TIFF of so many pages with so many more tags each, whose values are all the same."""
    out = bytearray(b"II*\0" + bytes(4) + G4_STRIP)
    link = 4
    for _ in range(directories):
        struct.pack_into("<I", out, link, len(out))
        usual = [entry(256, 3, 1, 1728), entry(257, 3, 1, 8), entry(259, 3, 1, 4)]
        usual += [entry(262, 3, 1, 0), entry(273, 4, 1, 8), entry(279, 4, 1, 1)]
        tags = usual + [entry(282, kind, length, 8)] * repeated + [entry(283, kind, length, 8)]
        out += struct.pack("<H", len(tags)) + b"".join(tags)
        link = len(out)
        out += bytes(4)
    return bytes(out) + bytes(8 * STRIPS_MAX)


@given(
    directories=st.integers(1, 30),
    repeated=st.sampled_from([0, 1, 2, 100, 240]),
    length=st.sampled_from([1, 2, 100, STRIPS_MAX]),
    kind=st.sampled_from([1, 3, 4, 5, 11, 12]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_work_is_bounded_by_the_size_of_the_file(counted, directories, repeated, length, kind):
    """However often a file names the same bytes, they are read about once; this counts them."""
    data = Counted(crowded(directories, repeated, length, kind=kind))
    with suppress(ContentRefusedError):
        read_pages(data, 500)
    assert data.work <= 4 * len(data)


def test_a_tag_stands_once_in_a_directory():
    """Readers differ in which of two they believe, so neither is."""
    with pytest.raises(ContentRefusedError, match="tag 282 twice"):
        read_pages(crowded(1, 2, 1), 500)


def test_values_that_all_pages_share_are_read_once_too_often():
    """Pages may share values as long as the file is as large as all that is read of it."""
    assert len(read_pages(crowded(2, 0, 1), 500)) == 2
    with pytest.raises(ContentRefusedError, match="directories overlap"):
        read_pages(crowded(2, 0, STRIPS_MAX), 500)


@pytest.mark.parametrize("extra, refused", [(0, False), (1, True)])
def test_strips_in_all_pages_are_counted(extra, refused):
    """Each strip is an image of its own in the PDF: so many at most, whatever the pages."""
    counts = [STRIPS_MAX] * (STRIPS_IN_ALL_MAX // STRIPS_MAX) + [1] * extra
    out, link = bytearray(b"II*\0" + bytes(4)), 4
    for count in counts:
        strips = len(out)
        out += G4_STRIP * count
        offsets = len(out)
        out += b"".join(struct.pack("<I", strips + 5 * n) for n in range(count)) + bytes(4)
        sizes = len(out)
        out += struct.pack("<I", 5) * count
        if count == 1:
            offsets, sizes = strips, 5
        struct.pack_into("<I", out, link, len(out))
        tags = [entry(256, 3, 1, 1728), entry(257, 3, 1, count), entry(259, 3, 1, 4)]
        tags += [entry(262, 3, 1, 0), entry(273, 4, count, offsets), entry(278, 3, 1, 1)]
        tags.append(entry(279, 4, count, sizes))
        out += struct.pack("<H", len(tags)) + b"".join(tags)
        link = len(out)
        out += bytes(4)
    if refused:
        with pytest.raises(ContentRefusedError, match=f"more than {STRIPS_IN_ALL_MAX} strips"):
            read_pages(bytes(out), 500)
    else:
        assert len(read_pages(bytes(out), 500)) == len(counts)


def floating(kind, packed):
    """Return a TIFF whose resolutions are floating-point numbers."""
    data = bytearray(tiff({282: (4, 1), 283: (4, 1)}))
    for tag in (282, 283):
        at = data.index(struct.pack("<HHI", tag, 4, 1))
        place = len(data)
        value = packed if len(packed) == 4 else struct.pack("<I", place)
        data[at : at + 12] = struct.pack("<HHI", tag, kind, 1) + value
        data += packed
    return bytes(data)


@pytest.mark.parametrize(
    "kind, packed, dpi",
    [
        (11, struct.pack("<f", 200.0), 200.0),
        (12, struct.pack("<d", 100.0), 100.0),
        (11, struct.pack("<f", float("inf")), None),
        (12, struct.pack("<d", float("nan")), None),
    ],
)
def test_a_resolution_may_be_a_floating_point_number(kind, packed, dpi):
    """What some drivers write is read; what is no number is taken as T.4's resolution."""
    (page,) = read_pages(floating(kind, packed), 9)
    assert page.dpi == ((dpi, dpi) if dpi else (204.0, 196.0))


def test_a_limit_of_the_page_is_named():
    """Who scans at 600 dots per inch is told how many dots a fax may have."""
    with pytest.raises(ContentRefusedError, match="4960 by 400 dots; a fax is at most 4864 by"):
        read_pages(tiff({256: (3, 4960), 257: (3, 400), 278: (3, 400)}), 9)


def test_a_strip_may_be_the_last_of_the_file():
    """A strip that ends where the file ends is whole; one byte more is cut off."""
    data = tiff({}) + G4_STRIP
    for more, cut in ((0, False), (1, True)):
        changed = bytearray(data)
        for tag, value in ((273, len(data) - len(G4_STRIP)), (279, len(G4_STRIP) + more)):
            at = changed.index(struct.pack("<HHI", tag, 4, 1))
            struct.pack_into("<I", changed, at + 8, value)
        if cut:
            with pytest.raises(ContentRefusedError, match="cut off"):
                read_pages(bytes(changed), 9)
        else:
            (page,) = read_pages(bytes(changed), 9)
            assert page.strips == ((len(data) - len(G4_STRIP), len(G4_STRIP)),)


def test_a_number_may_be_a_byte():
    """What is small enough for a byte may be written as one (TIFF 6.0, type 1)."""
    (page,) = read_pages(tiff({257: (1, 8), 278: (1, 8)}), 9)
    assert (page.height, page.rows_per_strip) == (8, 8)


def test_two_short_numbers_stand_in_the_directory_itself():
    """Four bytes of values are the entry's own (TIFF 6.0, 2), and no offset."""
    data = bytearray(tiff({278: (3, 4), 273: (4, 8), 279: (4, len(G4_STRIP))}))
    for tag, values in ((273, (8, 8)), (279, (len(G4_STRIP), len(G4_STRIP)))):
        at = data.index(struct.pack("<HHI", tag, 4, 1))
        data[at : at + 12] = struct.pack("<HHIHH", tag, 3, 2, *values)
    (page,) = read_pages(bytes(data), 9)
    assert page.strips == ((8, len(G4_STRIP)),) * 2


def test_strips_are_drawn_below_one_another():
    """Each strip begins where the one above it ends, and the last ends at the page's foot."""
    data = (SAMPLES / FAXES[1]).read_bytes()
    pages = read_pages(data, 500)
    with pikepdf.open(io.BytesIO(fax_pdf(data, pages))) as pdf:
        for shown, page in zip(pdf.pages, pages, strict=True):
            matrices = [
                [float(cast("float", number)) for number in step.operands]
                for step in pikepdf.parse_content_stream(shown)
                if str(step.operator) == "cm"
            ]
            width, foot = (float(side) for side in shown.MediaBox[2:])
            assert len(matrices) == len(page.strips) > 1
            for wide, _, _, tall, left, below in matrices:
                assert wide == pytest.approx(width)
                assert left == 0
                assert below == pytest.approx(foot - tall, abs=0.001)
                foot = below
            assert foot == pytest.approx(0, abs=0.001)
