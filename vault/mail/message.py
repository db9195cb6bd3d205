"""The faxes in a mail: its PDF and TIFF attachments, and nothing that is neither."""

from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import compat32

from vault.domain.faxes import MEDIA_TYPES
from vault.domain.media import by_signature
from vault.errors import ContentRefusedError, UnsupportedTypeError

#: Parts that are looked at; a mail with a fax has a handful.
PARTS_MAX = 100


def message_id(message: Message) -> str | None:
    """Return what the sending server repeats with the mail."""
    found = message.get("Message-ID")
    return str(found).strip() if found else None


def parse(content: bytes) -> Message:
    """Return the mail; raises `ContentRefusedError` where it cannot be read."""
    try:
        return message_from_bytes(content, policy=compat32)
    except (ValueError, LookupError, RecursionError):
        raise ContentRefusedError("the mail is malformed") from None


def faxes_in(message: Message, attachments_max: int) -> list[bytes]:
    """Return the faxes; raises for a mail with other attachments, with none, or with too many."""
    found = list[bytes]()
    for part in _parts(message):
        data = _content(part)
        if by_signature(data[:16]) in MEDIA_TYPES:
            found.append(data)
        elif part.get_content_maintype() != "text" or part.get_filename():
            raise UnsupportedTypeError("only PDF and TIFF attachments are faxed")
    if not found:
        raise ContentRefusedError("there is no PDF or TIFF attachment to fax")
    if len(found) > attachments_max:
        raise ContentRefusedError(f"a mail may bring at most {attachments_max} faxes")
    return found


def _parts(message: Message) -> Iterator[Message]:
    try:
        for number, part in enumerate(message.walk()):
            if number == PARTS_MAX:
                raise ContentRefusedError(f"the mail has more than {PARTS_MAX} parts")
            if not part.is_multipart():
                yield part
    except RecursionError:
        raise ContentRefusedError("the mail is malformed") from None


def _content(part: Message) -> bytes:
    try:
        content = part.get_payload(decode=True)
    except (ValueError, LookupError):
        raise ContentRefusedError("the mail is malformed") from None
    return content if isinstance(content, bytes) else b""
