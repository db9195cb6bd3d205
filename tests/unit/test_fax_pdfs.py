"""A fax that is a PDF: repaired as viewers do, refused with a reason, and disarmed for mail."""

import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pikepdf
import pytest

from tests.fixtures_server import SAMPLES
from vault.errors import ContentRefusedError
from vault.sandbox.pdf import count_pages, disarmed

CASES = Path(__file__).parents[1] / "cases"
REPAIRED = ("s-ok", "s-startxref+1", "s-startxref+9", "front-bom", "front-crlf", "front-text")
D, N = pikepdf.Dictionary, pikepdf.Name

#: Table 198 of ISO 32000-1 (and 32000-2, table 201), each with what it needs; GoTo stays inside.
ACTIONS: dict[str, dict[str, Any]] = {
    "GoToR": {"F": "other.pdf", "D": "a"},
    "GoToE": {"F": "other.pdf"},
    "GoToDp": {"Dp": D()},
    "Launch": {"F": "calc.exe"},
    "Thread": {"F": "other.pdf"},
    "URI": {"URI": "https://collect.example/"},
    "Sound": {},
    "Movie": {},
    "Hide": {"T": "a"},
    "Named": {"N": N.Print},
    "SubmitForm": {"F": "https://collect.example/"},
    "ResetForm": {},
    "ImportData": {"F": "data.fdf"},
    "SetOCGState": {"State": pikepdf.Array()},
    "Rendition": {"JS": "app.alert(1)"},
    "Trans": {},
    "GoTo3DView": {},
    "JavaScript": {"JS": "app.alert(1)"},
    "RichMediaExecute": {},
}


def action(kind: str, next_: Any = None) -> Any:
    """Return an action of a kind, and the one that follows it."""
    made = D(Type=N.Action, S=N("/" + kind), **ACTIONS[kind])
    if next_ is not None:
        made.Next = next_
    return made


def on_open(pdf: pikepdf.Pdf, made: Any) -> None:
    pdf.Root.OpenAction = made


def on_document(pdf: pikepdf.Pdf, made: Any) -> None:
    pdf.Root.AA = D(WC=made)


def on_page(pdf: pikepdf.Pdf, made: Any) -> None:
    pdf.pages[0].obj.AA = D(O=pdf.make_indirect(made))


def on_link(pdf: pikepdf.Pdf, made: Any) -> None:
    link = D(Type=N.Annot, Subtype=N.Link, Rect=[0, 0, 99, 99], A=made)
    pdf.pages[0].obj.Annots = pikepdf.Array([pdf.make_indirect(link)])


def on_field(pdf: pikepdf.Pdf, made: Any) -> None:
    field = D(Type=N.Annot, Subtype=N.Widget, FT=N.Tx, T="a", Rect=[0, 0, 99, 99])
    field.AA = D(K=made)
    field = pdf.make_indirect(field)
    pdf.pages[0].obj.Annots = pikepdf.Array([field])
    pdf.Root.AcroForm = D(Fields=[field])


def on_outline(pdf: pikepdf.Pdf, made: Any) -> None:
    item = pdf.make_indirect(D(Title="a", A=made))
    pdf.Root.Outlines = D(First=item, Last=item, Count=1)


def in_names(pdf: pikepdf.Pdf, made: Any) -> None:
    pdf.Root.Names = D(JavaScript=D(Names=pikepdf.Array([pikepdf.String("a"), made])))


def in_a_resource(pdf: pikepdf.Pdf, made: Any) -> None:
    pdf.pages[0].obj.Resources.Properties = D(MC0=D(Odd=pdf.make_indirect(made)))


def after_another(pdf: pikepdf.Pdf, made: Any) -> None:
    first = D(Type=N.Action, S=N.GoTo, D=[pdf.pages[0].obj, N.Fit])
    first.Next = pikepdf.Array([made])
    pdf.Root.OpenAction = first


PLACES = (
    *(on_open, on_document, on_page, on_link, on_field, on_outline, in_names, in_a_resource),
    after_another,
)


def file_attached(pdf: pikepdf.Pdf) -> None:
    pdf.attachments["a.txt"] = b"hello"


def file_annotation(pdf: pikepdf.Pdf) -> None:
    spec = pikepdf.AttachedFileSpec(pdf, b"hello", filename="a.txt").obj
    note = D(Type=N.Annot, Subtype=N.FileAttachment, Rect=[0, 0, 9, 9], FS=spec)
    pdf.pages[0].obj.Annots = pikepdf.Array([pdf.make_indirect(note)])


def file_associated(pdf: pikepdf.Pdf) -> None:
    spec = pikepdf.AttachedFileSpec(pdf, b"hello", filename="a.txt").obj
    pdf.Root.AF = pikepdf.Array([spec])
    pdf.pages[0].obj.Resources.Properties = D(MC0=D(AF=pikepdf.Array([spec])))


def rich_media(pdf: pikepdf.Pdf) -> None:
    note = D(Type=N.Annot, Subtype=N.RichMedia, Rect=[0, 0, 9, 9], RichMediaContent=D())
    pdf.pages[0].obj.Annots = pikepdf.Array([pdf.make_indirect(note)])


def xfa(pdf: pikepdf.Pdf) -> None:
    pdf.Root.AcroForm = D(Fields=[], XFA=pdf.make_stream(b"<xdp/>"))


def stream_elsewhere(pdf: pikepdf.Pdf) -> None:
    drawn = pdf.make_stream(b"", Type=N.XObject, Subtype=N.Form, BBox=[0, 0, 9, 9])
    drawn.F = D(Type=N.Filespec, FS=N.URL, F="https://collect.example/")
    drawn.Ref = D(F="other.pdf", Page=0)
    pdf.pages[0].obj.Resources.XObject = D(Fx=drawn)


def told_of_it(pdf: pikepdf.Pdf) -> None:
    pdf.docinfo["/Author"] = "Jane Roe"
    pdf.Root.Metadata = pdf.make_stream(b"<xmp>Jane Roe</xmp>")
    pdf.Root.URI = D(Base="https://collect.example/")
    pdf.Root.Collection = D()
    pdf.pages[0].obj.PieceInfo = D(App=D(Private="Jane Roe"))


OTHERS = (
    *(file_attached, file_annotation, file_associated, rich_media, xfa, stream_elsewhere),
    told_of_it,
)
#: What must not stand in what the relay mails, in the bytes of any object.
NEVER = tuple(
    word.encode()
    for word in (
        *(f"/S /{kind}" for kind in ACTIONS),
        *(
            "/OpenAction",
            "/AA ",
            "/A ",
            "/JS",
            "/JavaScript",
            "/URI",
            "/EmbeddedFile",
            "/EF",
            "/AF",
        ),
        *("/Filespec", "/AcroForm", "/XFA", "/Annots", "/RichMedia", "/Names", "/Outlines", "/Ref"),
        *("/Metadata", "/Info", "/PieceInfo", "/Collection", "collect.example", "Jane Roe", "calc"),
    )
)


def altered(change: Callable[[pikepdf.Pdf], None]) -> bytes:
    out = io.BytesIO()
    with pikepdf.open(SAMPLES / "loa.pdf") as pdf:
        change(pdf)
        pdf.save(out)
    return out.getvalue()


def spread(data: bytes) -> bytes:
    """Return the PDF with every object readable, none of its streams' content among them."""
    with pikepdf.open(io.BytesIO(data)) as pdf:
        objects: Iterator[Any] = iter(pdf.objects)
        texts = [pdf.trailer.unparse(resolved=False)]
        for item in objects:
            if isinstance(item, pikepdf.Stream):
                texts.append(item.stream_dict.unparse(resolved=False))
            elif isinstance(item, pikepdf.Object):
                texts.append(item.unparse(resolved=True))
        return b"\n".join(texts) + b"\n"


def assert_disarmed(data: bytes) -> None:
    found = spread(data)
    assert [word for word in NEVER if word in found] == []


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("kind", ACTIONS)
def test_no_action_of_any_kind_is_mailed(kind: str, place: Callable[..., None]) -> None:
    """Whatever of ISO 32000 stands wherever a viewer looks for it, nothing of it is left."""
    data = altered(lambda pdf: place(pdf, action(kind)))
    assert f"/S /{kind}".encode() in spread(data), "else nothing is tried here"
    assert_disarmed(disarmed(data))


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
def test_no_file_form_or_word_beside_the_pages_is_mailed(
    change: Callable[[pikepdf.Pdf], None],
) -> None:
    """Files, forms, media, places elsewhere and what is told of the document stay behind."""
    data = altered(change)
    assert any(word in spread(data) for word in NEVER), "else nothing is tried here"
    assert_disarmed(disarmed(data))


def rendered(data: bytes, place: Path) -> bytes:
    """Return the pages as Ghostscript draws them."""
    place.write_bytes(data)
    command = ["gs", "-q", "-dSAFER", "-dBATCH", "-dNOPAUSE", "-sDEVICE=pgmraw", "-r50", "-o", "-"]
    return subprocess.run([*command, str(place)], check=True, capture_output=True).stdout


@pytest.mark.parametrize("name", ["loa.pdf", "invoice.pdf", "national-id.pdf"])
def test_what_is_mailed_draws_the_same(tmp_path: Path, name: str) -> None:
    """Each page of a real document comes out of another reader dot by dot as it went in."""
    data = (SAMPLES / name).read_bytes()
    assert_disarmed(disarmed(data))
    before, after = (rendered(one, tmp_path / "a.pdf") for one in (data, disarmed(data)))
    assert before == after
    assert len(before) > 10_000


def test_what_annotations_and_fields_show_is_still_there(tmp_path: Path) -> None:
    """A stamp or a filled field is part of the page afterwards, and no field."""

    def stamp(pdf: pikepdf.Pdf) -> None:
        shown = pdf.make_stream(
            b"0 0 200 200 re f", Type=N.XObject, Subtype=N.Form, BBox=[0, 0, 200, 200]
        )
        note = D(Type=N.Annot, Subtype=N.Stamp, Rect=[100, 100, 300, 300], F=4, AP=D(N=shown))
        pdf.pages[0].obj.Annots = pikepdf.Array([pdf.make_indirect(note)])

    data, bare = altered(stamp), (SAMPLES / "loa.pdf").read_bytes()
    assert_disarmed(disarmed(data))
    before, after = (rendered(one, tmp_path / "a.pdf") for one in (data, disarmed(data)))
    assert before == after
    assert before != rendered(bare, tmp_path / "a.pdf")


def test_the_same_fax_is_mailed_in_the_same_bytes() -> None:
    """A mail that is sent twice is the same mail."""
    data = (SAMPLES / "loa.pdf").read_bytes()
    assert disarmed(data) == disarmed(data)


def test_names_of_resources_are_no_actions() -> None:
    """A font or picture may be called as it likes, and is drawn all the same."""

    def name(pdf: pikepdf.Pdf) -> None:
        font = D(Type=N.Font, Subtype=N.Type1, BaseFont=N.Helvetica)
        pdf.pages[0].obj.Resources.Font = D(A=font, AA=font, JS=font, EF=font, FS=font)

    with pikepdf.open(io.BytesIO(disarmed(altered(name)))) as pdf:
        assert set(pdf.pages[0].obj.Resources.Font.keys()) == {"/A", "/AA", "/JS", "/EF", "/FS"}
        assert pdf.pages[0].obj.Resources.Font.EF.BaseFont == N.Helvetica


@pytest.mark.parametrize("case", REPAIRED)
def test_what_every_viewer_opens_is_taken(case: str) -> None:
    """A table that is not where it should be, and something before the header, are no faults."""
    data = (CASES / f"{case}.pdf").read_bytes()
    assert count_pages(data, 9) == 1
    assert_disarmed(disarmed(data))


BROKEN = (CASES / "s-startxref+1.pdf").read_bytes()


@pytest.mark.parametrize(
    "data, reason",
    [
        (BROKEN[:-7], "may have been cut off"),
        (BROKEN.replace(b"4 0 obj", b"9 0 xbj"), "missing or damaged"),
        (BROKEN.replace(b"endstream", b"endstrxxx"), "missing or damaged"),
        (BROKEN.replace(b"[3 0 R]", b"[3 0 R 8 0 R]").replace(b"Count 1", b"Count 2"), "missing"),
        (BROKEN.replace(b"3 0 obj", b"3 0 obx"), "missing or damaged"),
    ],
)
def test_nothing_is_lost_by_a_repair(data: bytes, reason: str) -> None:
    """What lacks its end, a page or a page's contents is refused, and the reason said."""
    with pytest.raises(ContentRefusedError, match=reason):
        count_pages(data, 9)


def test_an_action_that_only_a_repair_finds_is_refused() -> None:
    """What is repaired is looked into as everything else is."""
    scripted = BROKEN.replace(
        b"/Pages 2 0 R >>", b"/Pages 2 0 R /OpenAction << /S /JavaScript /JS (a) >> >>"
    )
    with pytest.raises(ContentRefusedError, match="scripts"):
        count_pages(scripted, 9)
