"""
What a file is, by its first bytes, and whether that is what its sender says.

Only signatures are looked at; nothing of a file is parsed.
"""

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
)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"})
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


def by_signature(head: bytes) -> str | None:
    """Return the media type that the first bytes are the signature of."""
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return HEIC
    return None


def by_extension(filename: str) -> str | None:
    """Return the media type that a file name's extension stands for, None where it has none."""
    stem, dot, extension = filename.rpartition(".")
    if not dot or not stem:
        return None
    return _EXTENSIONS.get(extension.lower(), "another type")


def check_type(declared: str | None, filename: str | None, sniffed: str) -> None:
    """Raise `UnsupportedTypeError` when the Content-Type or the extension says otherwise."""
    said = (declared or "").partition(";")[0].strip().lower()
    said = _SAME.get(said, said)
    if said not in _NEUTRAL and said != sniffed:
        raise UnsupportedTypeError(f"the file is {sniffed}, and its Content-Type says otherwise")
    named = by_extension(filename) if filename else None
    if named is not None and named != sniffed:
        raise UnsupportedTypeError(
            f"the file is {sniffed}, and its name's extension says otherwise"
        )
