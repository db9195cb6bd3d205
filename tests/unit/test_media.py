"""Types by signature, and whether a sender's words agree with them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.documents import (
    HEAD_BYTES,
    HEIC,
    JPEG,
    MEDIA_TYPES,
    PDF,
    PDF_HEADER_WITHIN_BYTES,
    PNG,
    TIFF,
    by_signature,
    check_type,
    extension,
    readable,
)
from vault.errors import UnsupportedTypeError

SAMPLES = Path(__file__).parents[1] / "samples"
OF_SUFFIX = {".jpg": JPEG, ".png": PNG, ".tif": TIFF, ".pdf": PDF}


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    """Return the first box of an ISO media file."""
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4) + body


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_each_sample_is_what_it_is_called(sample: Path) -> None:
    """Real scans and faxes are recognised by their first bytes."""
    assert by_signature(sample.read_bytes()[:HEAD_BYTES]) == OF_SUFFIX[sample.suffix]


@pytest.mark.parametrize(
    "head, media_type",
    [
        (b"\xff\xd8\xff\xdb", JPEG),
        (b"\x89PNG\r\n\x1a\n\x00", PNG),
        (b"II*\x00", TIFF),
        (b"MM\x00*", TIFF),
        (b"II+\x00\x08\x00", TIFF),
        (b"MM\x00+\x00\x08", TIFF),
        (b"%PDF-1.7\n", PDF),
        (ftyp(b"heic", b"mif1", b"heic"), HEIC),
        (ftyp(b"heix"), HEIC),
        (ftyp(b"hevc", b"msf1", b"hevc"), HEIC),
        (ftyp(b"mif1", b"mif1", b"heic"), HEIC),
        (ftyp(b"mif1"), HEIC),
        (b"PK\x03\x04", "application/zip"),
        (b"PK\x05\x06" + bytes(18), "application/zip"),
        (b"\xff\xd8", None),
        (b"\n%PDF-1.7", PDF),
        (b"\xef\xbb\xbf%PDF-1.7", PDF),
        (bytes(PDF_HEADER_WITHIN_BYTES - 1) + b"%PDF-1.7", PDF),
        (bytes(PDF_HEADER_WITHIN_BYTES) + b"%PDF-1.7", None),
        (b"\xff\xd8\xff\xdb" + b"%PDF-1.7", JPEG),
        (b"PK\x03\x04" + b"%PDF-1.7", "application/zip"),
        (ftyp(b"avif", b"avif", b"mif1"), None),
        (ftyp(b"mif1", b"avif"), None),
        (ftyp(b"isom", b"mp41"), None),
        (b"MZ\x90\x00", None),
        (b"", None),
    ],
)
def test_signatures(head: bytes, media_type: str | None) -> None:
    """A signature counts at the very start, a PDF's where viewers look for it; AV1 is no HEIC."""
    assert by_signature(head) == media_type


def test_every_accepted_type_has_a_signature() -> None:
    """Nothing that a kind may be depends on libmagic."""
    heads = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"%PDF-", ftyp(b"heic"))
    assert {by_signature(head) for head in heads} == frozenset().union(*MEDIA_TYPES.values())


@given(st.binary(max_size=HEAD_BYTES), st.sampled_from([b"", b"\x00\x00\x00\x18ftyp"]))
def test_no_bytes_break_the_table(rest: bytes, start: bytes) -> None:
    """Whatever the bytes, the answer is a type or nothing."""
    assert by_signature(start + rest) is None or "/" in str(by_signature(start + rest))


@pytest.mark.parametrize(
    "declared, sniffed",
    [
        (None, JPEG),
        ("", JPEG),
        ("application/octet-stream", PDF),
        ("image/jpeg", JPEG),
        ("IMAGE/JPEG; charset=binary", JPEG),
        ("image/jpg", JPEG),
        ("image/pjpeg", JPEG),
        ("image/heif", HEIC),
        ("image/heic", HEIC),
        ("image/heic-sequence", HEIC),
        ("image/heic-sequence", JPEG),
        ("image/tif", TIFF),
        ("image/x-png", PNG),
        ("text/pdf", PDF),
        ("binary/octet-stream", JPEG),
        ("application/force-download", PDF),
    ],
)
def test_a_content_type_that_agrees_or_says_nothing(declared: str | None, sniffed: str) -> None:
    """Other spellings of a type agree with it; none and octet-stream say nothing."""
    check_type(declared, None, sniffed)


@pytest.mark.parametrize(
    "declared, sniffed",
    [
        ("image/jpeg", PDF),
        ("image/jpeg", HEIC),
        ("application/pdf", JPEG),
        ("text/html", PNG),
        ("nonsense", PNG),
    ],
)
def test_a_content_type_that_contradicts(declared: str, sniffed: str) -> None:
    """A declared type that the bytes are not is refused, and the bytes' type named."""
    with pytest.raises(UnsupportedTypeError, match=f"the file is {sniffed}.*Content-Type"):
        check_type(declared, None, sniffed)


@pytest.mark.parametrize(
    "filename, sniffed",
    [
        ("scan.jpg", JPEG),
        ("SCAN.JPEG", JPEG),
        ("a.b.jpe", JPEG),
        ("fax.tif", TIFF),
        ("fax.TIFF", TIFF),
        ("photo.heif", HEIC),
        ("scan", PDF),
        (".scan", PDF),
        ("scan.", PDF),
        ("passport of Mr. Smith", PDF),
        ("Passport J.Smith", JPEG),
        ("Passport J.Lee", JPEG),
        ("passport j.smith", JPEG),
        ("Pass J.Müller", JPEG),
        ("scan.jfif", JPEG),
        ("IMG_1.HIF", HEIC),
        ("IMG_1.HIF", JPEG),
        ("IMG_1.heic", JPEG),
        ("IMG_1.heics", HEIC),
        ("page 1.2", PDF),
        (None, PDF),
    ],
)
def test_a_name_that_agrees_or_says_nothing(filename: str | None, sniffed: str) -> None:
    """An extension of the same type agrees; a name without one says nothing."""
    check_type(None, filename, sniffed)


@pytest.mark.parametrize("filename", ["scan.png", "scan.jpg.pdf", "scan.tiff"])
def test_an_extension_of_another_type(filename: str) -> None:
    """An extension that names another type is refused, and said."""
    with pytest.raises(UnsupportedTypeError, match=rf"image/jpeg.*\.{extension(filename)} says"):
        check_type(None, filename, JPEG)


@pytest.mark.parametrize(
    "filename",
    [
        *("scan.exe", "scan.jpg.html", "scan.html.", "scan.exe. .", "scan.7z", "a.jpg_x"),
        *("scan.Exe", "scan.Html", "scan.xhtml", "scan.exe\u202f", "scan.Docx", "a.pages"),
    ],
)
def test_an_unknown_extension(filename: str) -> None:
    """An extension that no document has is refused, also behind dots that some systems drop."""
    with pytest.raises(UnsupportedTypeError, match=r"no document is called \."):
        check_type(None, filename, JPEG)


@pytest.mark.parametrize("raw", ["Paño.jpg".encode(), "Paño.jpg".encode("latin-1")])
def test_a_name_that_is_no_utf_8_is_read_all_the_same(raw: bytes) -> None:
    """What an old disk or an old client calls a file has its letters, and can be sent on."""
    name = raw.decode("utf-8", "surrogateescape")
    assert readable(name) == "Paño.jpg"
