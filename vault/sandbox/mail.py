"""
The faxes in a mail: its PDF and TIFF attachments. Runs in the sandbox alone.

What is passed over, by rule, is what mail programs add and nobody means to fax: text, the signature
of a signed mail, Exchange's text around attachments, and pictures that stand in the text, as a logo
does. Any other part that is no fax refuses the mail: its sender believes that it is faxed.
"""

import codecs
import re
from collections.abc import Iterator
from email.errors import MessageError
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

from vault.domain.documents import HEAD_BYTES, by_signature
from vault.domain.faxes import MEDIA_TYPES
from vault.errors import ContentRefusedError, UnsupportedTypeError

# The alphabets of names of attachments are loaded here: where mails are read no file can be opened.
for _alphabet in (
    *("utf-8", "ascii", "iso-8859-1", "iso-8859-2", "iso-8859-15", "cp1250", "cp1251", "cp1252"),
    *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "euc-jp", "iso-2022-jp", "shift_jis"),
    *("euc-kr", "koi8-r", "raw-unicode-escape"),
):
    codecs.lookup(_alphabet)

#: Parts that are looked at; a mail with a fax has a handful.
PARTS_MAX = 100
NAME_LENGTH_MAX = 998
_SIGNATURES = frozenset(
    {"application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature"}
)
#: What hides the parts of a mail: it would have to be opened with a key that is not here.
_CLOSED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted"})
#: What Exchange calls the text that it finds around attachments.
_AROUND = re.compile(r"ATT\d{5,6}\.(txt|html?)", re.ASCII | re.IGNORECASE)


def read_mail(content: bytes, attachments_max: int) -> tuple[bytes, list[bytes]]:
    """
    Return the Message-ID (empty where there is none) and the faxes.

    Raises `UnsupportedTypeError` for a mail with other attachments, `ContentRefusedError` for one
    with no fax, with too many, or that cannot be read.
    """
    try:
        message = BytesParser(policy=compat32).parsebytes(content)
        return _message_id(message), _faxes_in(message, attachments_max)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        MessageError,
        RecursionError,
        OSError,
    ):
        raise ContentRefusedError("the mail is malformed") from None


def _message_id(message: Message) -> bytes:
    """Return what the sending server repeats with the mail."""
    found = str(message.get("Message-ID", "")).strip()
    return found[:NAME_LENGTH_MAX].encode("utf-8", "replace")


def _faxes_in(message: Message, attachments_max: int) -> list[bytes]:
    found = list[bytes]()
    for part in _parts(message):
        data = _content(part)
        if by_signature(data[:HEAD_BYTES]) in MEDIA_TYPES:
            found.append(data)
        elif part.get_content_type() in _CLOSED:
            raise UnsupportedTypeError(
                "the mail is encrypted, or signed so that its parts are hidden (smime.p7m); "
                "send it plain or clear-signed, over TLS"
            )
        elif not _is_passed_over(part):
            raise UnsupportedTypeError("only PDF and TIFF attachments are faxed")
    if not found:
        raise ContentRefusedError("there is no PDF or TIFF attachment to fax")
    if len(found) > attachments_max:
        raise ContentRefusedError(f"a mail may bring at most {attachments_max} faxes")
    return found


def _is_passed_over(part: Message) -> bool:
    """Whether nobody who wrote this mail means the part to be faxed."""
    if part.get_content_type() in _SIGNATURES:
        return True
    name = part.get_filename()
    if part.get_content_maintype() == "text":
        return not name or bool(_AROUND.fullmatch(name))
    # A picture in the text, which the text shows by its Content-ID (RFC 2392).
    shown = part.get_content_disposition() == "inline" and part.get("Content-ID")
    return part.get_content_maintype() == "image" and bool(shown)


def _parts(message: Message) -> Iterator[Message]:
    for number, part in enumerate(message.walk()):
        if number == PARTS_MAX:
            raise ContentRefusedError(f"the mail has more than {PARTS_MAX} parts")
        if not part.is_multipart():
            yield part


def _content(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
