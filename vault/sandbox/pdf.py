"""A fax that is a PDF: how many pages, and whether it is only pages. Runs in the sandbox alone."""

from io import BytesIO

import pikepdf

from vault.errors import ContentRefusedError

#: Objects that are looked at; a fax has a few for each page.
OBJECTS_MAX = 200_000
#: ISO 32000-1, 14.11.2: a side is at most 14,400 units, 200 inches.
SIDE_MAX = 14_400
_ACTIVE_KEYS = frozenset(
    {"/JS", "/JavaScript", "/XFA", "/EmbeddedFiles", "/EF", "/RichMediaContent"}
)
_ACTIVE_ACTIONS = frozenset(
    {
        *("/JavaScript", "/Launch", "/SubmitForm", "/ImportData", "/Rendition"),
        *("/RichMediaExecute", "/GoToE", "/Movie", "/Sound"),
    }
)


def count_pages(data: bytes, pages_max: int) -> int:
    """Return the number of pages; raises `ContentRefusedError` for what is no plain document."""
    try:
        with pikepdf.open(BytesIO(data), attempt_recovery=False, suppress_warnings=True) as pdf:
            if pdf.is_encrypted:
                raise ContentRefusedError("the PDF is encrypted")
            pages = len(pdf.pages)
            if not 1 <= pages <= pages_max:
                raise ContentRefusedError(f"the PDF has {pages} pages; a fax has 1 to {pages_max}")
            _check_sides(pdf)
            _check_passive(pdf)
            return pages
    except pikepdf.PasswordError:
        raise ContentRefusedError("the PDF is encrypted") from None
    except (pikepdf.PdfError, ValueError, TypeError, KeyError, RuntimeError, RecursionError):
        # To open what is encrypted the library would need files that the sandbox does not give.
        what = "encrypted" if b"/Encrypt" in data else "malformed"
        raise ContentRefusedError(f"the PDF is {what}") from None


def _check_sides(pdf: pikepdf.Pdf) -> None:
    for page in pdf.pages:
        left, low, right, high = (float(number) for number in page.mediabox)
        if not (0 < abs(right - left) <= SIDE_MAX and 0 < abs(high - low) <= SIDE_MAX):
            raise ContentRefusedError("a page of the PDF has absurd dimensions")


def _check_passive(pdf: pikepdf.Pdf) -> None:
    """Refuse scripts, launches, forms that send, and files within the file."""
    waiting: list[pikepdf.Object] = [pdf.trailer, *pdf.objects]
    seen = 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > OBJECTS_MAX:
            raise ContentRefusedError("the PDF has too many objects for a fax")
        if isinstance(item, pikepdf.Array):
            below: list[object] = list(item)
        elif isinstance(item, pikepdf.Dictionary | pikepdf.Stream):
            keys = set(item.keys())
            if keys & _ACTIVE_KEYS or str(item.get("/S", "")) in _ACTIVE_ACTIONS:
                raise ContentRefusedError("the PDF has scripts, actions or files in it")
            below = [item[key] for key in keys]
        else:
            continue
        # What is referred to is in the list of objects already.
        waiting += [one for one in below if isinstance(one, pikepdf.Object) and not one.is_indirect]
