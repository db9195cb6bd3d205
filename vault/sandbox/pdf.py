"""
A fax that is a PDF: whether it is only pages, and how many; and, for the relay, only its pages.

Runs in the sandbox alone. ISO 32000-1 is cited by section.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import pikepdf

from vault.errors import ContentRefusedError

#: Objects that are looked at; a fax has a few for each page.
OBJECTS_MAX = 200_000
#: ISO 32000-1, 14.11.2: a side is at most 14,400 units, 200 inches.
SIDE_MAX = 14_400
#: Where viewers look for the end of a file (7.5.5, and annex H, note 18).
END_BYTES = 1024
_ACTIVE_KEYS = frozenset(
    {"/JS", "/JavaScript", "/XFA", "/EmbeddedFiles", "/EF", "/RichMediaContent"}
)
_ACTIVE_ACTIONS = frozenset(
    {
        *("/JavaScript", "/Launch", "/SubmitForm", "/ImportData", "/Rendition"),
        *("/RichMediaExecute", "/GoToE", "/Movie", "/Sound"),
    }
)
#: All actions there are (12.6.4, and those of ISO 32000-2), but to go to a page of the same file.
ACTIONS = _ACTIVE_ACTIONS | frozenset(
    {
        *("/GoToR", "/GoToDp", "/Thread", "/URI", "/Hide", "/Named", "/ResetForm"),
        *("/SetOCGState", "/Trans", "/GoTo3DView"),
    }
)
#: What of the catalog, of a node of the page tree and of a page is needed to draw (7.7.2, 7.7.3).
_CATALOG_KEYS = frozenset({"/Type", "/Version", "/Pages", "/OCProperties", "/OutputIntents"})
_PAGE_KEYS = frozenset(
    {
        *("/Type", "/Parent", "/Kids", "/Count", "/Resources", "/Contents", "/Group"),
        *("/MediaBox", "/CropBox", "/BleedBox", "/TrimBox", "/ArtBox", "/Rotate", "/UserUnit"),
    }
)
#: What of a stream leads out of the file, or says something beside what is drawn (7.3.8.2, 8.10.4,
#: 14.5, 14.11.7).
_STREAM_KEYS_LEFT_OUT = frozenset(
    {
        *("/F", "/FFilter", "/FDecodeParms", "/Ref", "/OPI", "/AF", "/PieceInfo", "/Metadata"),
        *("/LastModified", "/StructParent", "/StructParents", "/Alternates", "/Measure", "/PtData"),
    }
)
#: What the library says last when it makes a table of its own, and need not mend objects, too.
_REPAIRED = "Attempting to reconstruct cross-reference table"
_ERRORS = (
    *(pikepdf.PdfError, ValueError, TypeError, KeyError, AttributeError, RuntimeError),
    *(RecursionError, OverflowError),
)


def count_pages(data: bytes, pages_max: int) -> int:
    """Return the number of pages; raises `ContentRefusedError` for what is no plain document."""
    try:
        with _opened(data) as pdf:
            pages = len(pdf.pages)
            if not 1 <= pages <= pages_max:
                raise ContentRefusedError(f"the PDF has {pages} pages; a fax has 1 to {pages_max}")
            _check_sides(pdf)
            _check_passive(pdf)
            return pages
    except pikepdf.PasswordError:
        raise ContentRefusedError("the PDF is encrypted") from None
    except _ERRORS:
        raise ContentRefusedError(_malformed(data)) from None


def disarmed(data: bytes) -> bytes:
    """
    Return a PDF that draws the same pages, and does nothing else.

    Only what draws is taken over: what annotations and forms show becomes part of the page, and
    actions, scripts, links, forms, files and metadata stay behind, known ones or not. Raises
    `ContentRefusedError` where that cannot be done.
    """
    out = BytesIO()
    try:
        with _opened(data) as pdf:
            if "/AcroForm" in pdf.Root:
                pdf.generate_appearance_streams()
            pdf.flatten_annotations("all")
            _keep_only(pdf.Root, _CATALOG_KEYS)
            for name in set(pdf.trailer.keys()) - {"/Root", "/Size"}:
                del pdf.trailer[name]
            seen = set[tuple[int, int]]()
            for page in pdf.pages:
                _strip_page(page.obj, seen)
            for item in _walk([pdf.Root], indirect=True):
                _strip(item)
            pdf.save(out, static_id=True, object_stream_mode=pikepdf.ObjectStreamMode.disable)
    except pikepdf.PasswordError:
        raise ContentRefusedError("the PDF is encrypted") from None
    except _ERRORS:
        raise ContentRefusedError(_malformed(data)) from None
    return out.getvalue()


def _opened(data: bytes) -> pikepdf.Pdf:
    """
    Open a PDF as viewers do: one whose cross-reference table is not where it says is repaired.

    A file that was cut off is none of those: a page that is missing would not be missed. So what is
    repaired must have its end, each page that it counts, and each page its contents.
    """
    try:
        pdf = pikepdf.open(BytesIO(data), attempt_recovery=False, suppress_warnings=True)
    except pikepdf.PasswordError:
        raise
    except pikepdf.PdfError:
        if b"%%EOF" not in data[-END_BYTES:] or b"/Encrypt" in data:
            raise
        pdf = pikepdf.open(BytesIO(data), suppress_warnings=True)
        if not _is_whole(pdf):
            raise
    if pdf.is_encrypted:
        raise ContentRefusedError("the PDF is encrypted")
    return pdf


def _is_whole(pdf: pikepdf.Pdf) -> bool:
    """Whether nothing but the cross-reference table had to be repaired."""
    # A page whose contents are missing is to the library one that never had any.
    if not all("/Contents" in page for page in pdf.pages):
        return False
    warnings = [str(warning) for warning in pdf.get_warnings()]
    return bool(warnings) and warnings[-1].endswith(_REPAIRED) and not pdf.check_pdf_syntax()


def _malformed(data: bytes) -> str:
    if b"/Encrypt" in data:
        # To open what is encrypted the library would need files that the sandbox does not give.
        return "the PDF is encrypted"
    if b"%%EOF" not in data[-END_BYTES:]:
        return "the PDF is malformed: it does not end as a PDF does, and may have been cut off"
    return (
        "the PDF is malformed: objects or pages are missing or damaged, and it cannot be repaired"
    )


def _check_sides(pdf: pikepdf.Pdf) -> None:
    for page in pdf.pages:
        left, low, right, high = (float(number) for number in page.mediabox)
        if not (0 < abs(right - left) <= SIDE_MAX and 0 < abs(high - low) <= SIDE_MAX):
            raise ContentRefusedError("a page of the PDF has absurd dimensions")


def _check_passive(pdf: pikepdf.Pdf) -> None:
    """Refuse scripts, launches, forms that send, and files within the file."""
    # What is referred to is in the list of objects already.
    objects: Iterable[Any] = pdf.objects
    found = [item for item in objects if isinstance(item, pikepdf.Object)]
    for item in _walk([pdf.trailer, *found], indirect=False):
        if isinstance(item, pikepdf.Array):
            continue
        if set(item.keys()) & _ACTIVE_KEYS or str(item.get("/S", "")) in _ACTIVE_ACTIONS:
            raise ContentRefusedError("the PDF has scripts, actions or files in it")


def _walk(items: Iterable[pikepdf.Object], *, indirect: bool) -> Iterator[pikepdf.Object]:
    """Yield arrays, dictionaries and streams, and those in them; bounded."""
    waiting, seen, count = list(items), set[tuple[int, int]](), 0
    while waiting:
        item = waiting.pop()
        if item.is_indirect and indirect:
            if item.objgen in seen:
                continue
            seen.add(item.objgen)
        count += 1
        if count > OBJECTS_MAX:
            raise ContentRefusedError("the PDF has too many objects for a fax")
        if isinstance(item, pikepdf.Array):
            below: list[Any] = list(item)
        elif isinstance(item, pikepdf.Dictionary | pikepdf.Stream):
            below = [item[key] for key in item.keys()]  # noqa: SIM118 - no mapping
        else:
            continue
        yield item
        waiting += [
            one
            for one in below
            if isinstance(one, pikepdf.Object) and (indirect or not one.is_indirect)
        ]


def _keep_only(item: pikepdf.Object, keys: frozenset[str]) -> None:
    for key in set(item.keys()) - keys:
        del item[key]


def _strip_page(page: pikepdf.Object, seen: set[tuple[int, int]]) -> None:
    """Leave of a page, and of the nodes above it, what draws."""
    node: pikepdf.Object | None = page
    while node is not None and node.objgen not in seen:
        seen.add(node.objgen)
        _keep_only(node, _PAGE_KEYS)
        node = node.get("/Parent")


def _strip(item: pikepdf.Object) -> None:
    """Take out of one object what does something, or leads elsewhere."""
    if isinstance(item, pikepdf.Array):
        return
    if isinstance(item, pikepdf.Stream):
        for key in set(item.keys()) & _STREAM_KEYS_LEFT_OUT:
            del item[key]
    elif str(item.get("/S", "")) in ACTIONS or _is_file(item):
        _keep_only(item, frozenset())
    elif isinstance(item.get("/AF"), pikepdf.Array):
        del item["/AF"]


def _is_file(item: pikepdf.Object) -> bool:
    """Whether a dictionary names a file; a resource may have any name, so values are looked at."""
    if str(item.get("/Type", "")) in {"/Filespec", "/F"}:
        return True
    embedded = item.get("/EF")
    return (
        isinstance(item.get("/UF"), pikepdf.String)
        or (isinstance(item.get("/FS"), pikepdf.Name) and "/F" in item)
        or (
            isinstance(embedded, pikepdf.Dictionary)
            and any(isinstance(embedded[key], pikepdf.Stream) for key in embedded.keys())  # noqa: SIM118 - no mapping
        )
    )
