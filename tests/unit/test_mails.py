"""The faxes in a mail: what is taken, what is passed over by rule, and what refuses the mail."""

from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import ContentRefusedError, UnsupportedTypeError
from vault.sandbox import frames
from vault.sandbox.mail import PARTS_MAX, read_mail

CASES = Path(__file__).parents[1] / "cases"
PDF = b"%PDF-1.4\n%%EOF\n"


def mail(*parts: Callable[[EmailMessage], None]) -> bytes:
    """Return a mail with a PDF and these parts beside it."""
    made = EmailMessage()
    made["Message-ID"] = "<one@acme.test>"
    made.set_content("as agreed")
    made.add_attachment(PDF, maintype="application", subtype="pdf", filename="loa.pdf")
    for add in parts:
        add(made)
    return made.as_bytes()


def attached(
    kind: str, content: bytes, name: str | None, **options: Any
) -> Callable[[EmailMessage], None]:
    """Return what attaches a part."""
    main, _, sub = kind.partition("/")

    def add(made: EmailMessage) -> None:
        made.add_attachment(content, maintype=main, subtype=sub, filename=name, **options)

    return add


@pytest.mark.parametrize("case", ["mail-smime", "mail-att00001", "mail-logo"])
def test_what_mail_programs_add_is_passed_over(case: str) -> None:
    """A signature, Exchange's ATT00001.txt and a logo in the text cost no fax."""
    name, faxes = read_mail((CASES / f"{case}.eml").read_bytes(), 1)
    assert name == f"<{case.removeprefix('mail-')}@acme.test>".encode()
    assert [fax[:5] for fax in faxes] == [b"%PDF-"]


@pytest.mark.parametrize(
    "part",
    [
        attached("application/pkcs7-signature", b"0", "smime.p7s"),
        attached("application/x-pkcs7-signature", b"0", "smime.p7s"),
        attached("application/pgp-signature", b"-", "signature.asc"),
        attached("text/plain", b"-- ", "ATT00002.txt"),
        attached("text/html", b"<p>", "att000123.htm"),
        attached("image/png", b"\x89PNG", "image001.png", disposition="inline", cid="<a@b>"),
    ],
)
def test_each_rule_passes_over_what_it_names(part: Callable[[EmailMessage], None]) -> None:
    """The fax beside it is taken, and nothing else."""
    assert read_mail(mail(part), 1)[1] == [PDF]


@pytest.mark.parametrize(
    "part",
    [
        attached("text/plain", b"the real letter", "letter.txt"),
        attached("image/jpeg", b"\xff\xd8\xff", "page.jpg"),
        attached("image/jpeg", b"\xff\xd8\xff", "page.jpg", disposition="inline"),
        attached("image/jpeg", b"\xff\xd8\xff", "page.jpg", cid="<a@b>"),
        attached("application/zip", b"PK\x03\x04", "pages.zip"),
        attached("application/ms-tnef", b"x", "winmail.dat"),
        attached("application/octet-stream", b"x", "smime.p7s"),
    ],
)
def test_what_somebody_may_mean_to_fax_refuses_the_mail(
    part: Callable[[EmailMessage], None],
) -> None:
    """Nobody believes that a page was faxed which was left out."""
    with pytest.raises(UnsupportedTypeError, match="only PDF and TIFF"):
        read_mail(mail(part), 9)


@pytest.mark.parametrize("kind", ["application/pkcs7-mime", "application/x-pkcs7-mime"])
def test_a_mail_whose_parts_are_hidden_is_told_what_to_do(kind: str) -> None:
    """What is signed or encrypted as a whole has to be sent otherwise."""
    made = EmailMessage()
    main, _, sub = kind.partition("/")
    made.set_content(b"0", maintype=main, subtype=sub)
    with pytest.raises(UnsupportedTypeError, match="clear-signed"):
        read_mail(made.as_bytes(), 9)


def test_attachments_and_parts_at_the_limit_pass_and_one_more_does_not() -> None:
    """So many faxes in a mail, and so many parts that are looked at."""
    more = [attached("application/pdf", PDF, "b.pdf")]
    assert len(read_mail(mail(*more), 2)[1]) == 2
    with pytest.raises(ContentRefusedError, match="at most 1 faxes"):
        read_mail(mail(*more), 1)
    texts = [attached("text/plain", b"-", "ATT00001.txt")] * (PARTS_MAX - 3)
    assert len(read_mail(mail(*texts), 1)[1]) == 1
    with pytest.raises(ContentRefusedError, match=f"more than {PARTS_MAX} parts"):
        read_mail(mail(*texts, texts[0]), 1)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=a"])
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_faxes_or_a_refusal(data: bytes, head: bytes) -> None:
    """Whatever comes as a mail, nothing but a refusal is raised."""
    try:
        _, faxes = read_mail(head + b"\n\n" + data, 9)
    except (ContentRefusedError, UnsupportedTypeError):
        return
    assert faxes


@given(st.binary(max_size=50), st.lists(st.binary(max_size=50), max_size=4))
def test_what_was_found_comes_over_the_pipe_as_it_was(name: bytes, faxes: list[bytes]) -> None:
    """`parse_parts` returns what `parts` was given, and refuses all that it never returns."""
    packed = frames.parts(name, faxes)
    assert frames.parse_parts(packed) == (name, faxes)
    for broken in (b"", packed[:-1], packed + b"\0"):
        with pytest.raises(ValueError):
            frames.parse_parts(broken)
