"""TIFF-F as fax machines write it, and as nobody should."""

import io
import subprocess
from typing import cast

import pikepdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from PIL.TiffImagePlugin import TiffImageFile

from tests.fixtures_server import SAMPLES
from tests.fixtures_telefax import G3_STRIP, G4_STRIP, loop, tiff
from vault.domain.fax_pdf import fax_pdf
from vault.domain.tiff_fax import HEIGHT_MAX, REVERSED, WIDTH_MAX, read_pages
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
