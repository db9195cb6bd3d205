"""Bodies of mails that nobody's mail program sends: at a limit, past it, and past all sense."""

import base64
import gzip
from pathlib import Path

from vault.sandbox.mail import PARTS_MAX

PLAIN = (Path(__file__).parent / "cases" / "s-ok.pdf").read_bytes()
CODED = b"Content-Transfer-Encoding: "
NAMED = b"Content-Disposition: attachment; filename"


def part(kind: bytes, body: bytes, *headers: bytes) -> bytes:
    """Return a part of a mail."""
    return b"\r\n".join((b"Content-Type: " + kind, *headers, b"", body))


def multipart(*parts: bytes, boundary: bytes = b"b") -> bytes:
    """Return parts together."""
    inside = b"".join(b"\r\n--%b\r\n%b" % (boundary, one) for one in parts)
    body = inside + b"\r\n--%b--\r\n" % boundary
    return part(b"multipart/mixed; boundary=" + boundary, body)


def fax_part(*headers: bytes) -> bytes:
    """Return a fax as it is attached."""
    body = base64.encodebytes(PLAIN).replace(b"\n", b"\r\n")
    return part(b"application/pdf", body, CODED + b"base64", *headers)


def coded(coding: bytes, body: bytes) -> bytes:
    """Return a mail with one part that claims to be a fax in some coding."""
    return multipart(part(b"application/pdf", body, CODED + coding))


def nested(depth: int, inmost: bytes) -> bytes:
    """Return a part within so many others."""
    heads, tails = [], []
    for level in range(depth):
        name = b"b%d" % level
        heads.append(b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (name, name))
        tails.append(b"\r\n--%b--\r\n" % name)
    return b"".join(heads) + inmost + b"".join(reversed(tails))


def hostile_mails() -> dict[str, tuple[bytes, bool]]:
    """Return mails, each by what is hostile in it, and whether its fax is taken all the same."""
    fax, text = fax_part(), part(b"text/plain", b"please")
    lines = b"=\r\n" * 20_000
    return {
        # The mail itself and the fax are two of the hundred parts.
        "parts at the limit": (multipart(*[text] * (PARTS_MAX - 2), fax), True),
        "parts past it": (multipart(*[text] * (PARTS_MAX - 1), fax), False),
        "depth at the limit": (nested(PARTS_MAX - 1, fax), True),
        "depth past it": (nested(PARTS_MAX, fax), False),
        "as deep as no parser goes": (nested(5_000, fax), False),
        "messages in messages": (
            b"Content-Type: message/rfc822\r\n\r\n" * 3_000 + fax,
            False,
        ),
        "parts by the thousand": (multipart(*[b"\r\n"] * 20_000), False),
        "a fax whose end never comes": (multipart(fax)[:-8], True),
        "a boundary that is none": (part(b"multipart/mixed", b"--\r\n" + fax), False),
        "a boundary of its parent's": (multipart(multipart(fax), text), False),
        "a coding that is unknown": (coded(b"rot13", base64.b64encode(bytes(300))), False),
        "base64 that is none": (coded(b"base64", b"\xff=!\r\n" * 5000), False),
        "uuencode that is none": (coded(b"x-uuencode", b"begin 666 x\r\n\xff\xff"), False),
        "quoted-printable of nothing": (coded(b"quoted-printable", lines), False),
        "compressed as a whole": (
            part(
                b"application/gzip",
                base64.encodebytes(gzip.compress(bytes(1 << 24))).replace(b"\n", b"\r\n"),
                CODED + b"base64",
            ),
            False,
        ),
        "a fax that is compressed": (
            coded(b"base64", base64.encodebytes(gzip.compress(PLAIN)).replace(b"\n", b"\r\n")),
            False,
        ),
        "an alphabet that is unknown": (
            multipart(part(b"text/plain; charset=klingon", b"x"), fax),
            True,
        ),
        "a name in an unknown alphabet": (multipart(fax_part(NAMED + b"*=klingon''%FF")), True),
        "a name as long as a line": (multipart(fax_part(NAMED + b"*0=" + b"x" * 940)), True),
        "a name in ten thousand pieces": (
            multipart(
                fax_part(NAMED + b"*0=a" + b"".join(b";\r\n *%d=a" % n for n in range(10_000)))
            ),
            True,
        ),
        "fifty thousand headers": (b"X: y\r\n" * 50_000 + multipart(fax), True),
        "a header folded without end": (b"X: y\r\n" + b" z\r\n" * 50_000 + multipart(fax), True),
        "no header but colons": (b":\r\n" * 10_000 + multipart(fax), True),
        "a line at the limit": (b"X: " + b"y" * 995 + b"\r\n" + multipart(fax), True),
        "a line past it": (b"X: " + b"y" * 1000 + b"\r\n" + multipart(fax), False),
        "NUL and half a character": (b"X: \0\xff\xfe\r\n" + multipart(fax), True),
    }
