"""
What a file is, by its first bytes, and whether that is what its sender says.

Only signatures are looked at; nothing of a file is parsed.
"""

import re

from vault.domain.documents import HEIC, JPEG, PDF, PNG, TIFF
from vault.errors import UnsupportedTypeError

HEAD_BYTES = 2048

_SIGNATURES = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"II+\x00", TIFF),
    (b"MM\x00+", TIFF),
    (b"%PDF-", PDF),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"PK\x07\x08", "application/zip"),
)
# ISO/IEC 23008-12: images and sequences coded with HEVC, and the two brands of any HEIF.
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})
_AV1_BRANDS = frozenset({b"avif", b"avis"})
_NEUTRAL = frozenset({"application/octet-stream", ""})
_SAME = {
    "image/jpg": JPEG,
    "image/pjpeg": JPEG,
    "image/heif": HEIC,
    "image/x-tiff": TIFF,
    "application/x-pdf": PDF,
}
_EXTENSIONS = {
    "jpg": JPEG,
    "jpeg": JPEG,
    "jpe": JPEG,
    "png": PNG,
    "tif": TIFF,
    "tiff": TIFF,
    "pdf": PDF,
    "heic": HEIC,
    "heif": HEIC,
}
# A name may hold a dot and end in a word or a number, as in "Mr. Smith" or "page 1.2".
_EXTENSION = re.compile(r"(?=.*[^\W\d_])\S+")


def by_signature(head: bytes) -> str | None:
    """Return the media type that the first bytes are the signature of."""
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    return HEIC if _is_heic(head) else None


def _is_heic(head: bytes) -> bool:
    if head[4:8] != b"ftyp":
        return False
    if head[8:12] in _HEVC_BRANDS:
        return True
    end = min(int.from_bytes(head[:4]), len(head))
    compatible = {head[start : start + 4] for start in range(16, end, 4)}
    return head[8:12] in _HEIF_BRANDS and (
        not compatible & _AV1_BRANDS or bool(compatible & _HEVC_BRANDS)
    )


def extension(filename: str) -> str | None:
    """Return the name's extension in lower case; dots and spaces at the end hide none."""
    stem, dot, end = filename.rstrip(". ").rpartition(".")
    return end.lower() if stem and dot and _EXTENSION.fullmatch(end) else None


def check_type(declared: str | None, filename: str | None, sniffed: str) -> None:
    """Raise `UnsupportedTypeError` when the Content-Type or the extension says otherwise."""
    said = (declared or "").partition(";")[0].strip().lower()
    said = _SAME.get(said, said)
    if said not in _NEUTRAL and said != sniffed:
        raise UnsupportedTypeError(f"the file is {sniffed}, and its Content-Type says otherwise")
    named = extension(filename) if filename else None
    if named is None:
        return
    if named not in _EXTENSIONS:
        raise UnsupportedTypeError(
            f"no document is called .{named}; the file is {sniffed}, name it so"
        )
    if _EXTENSIONS[named] != sniffed:
        raise UnsupportedTypeError(
            f"the file is {sniffed}, and its name's extension .{named} says otherwise"
        )
