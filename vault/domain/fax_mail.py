"""
A fax as a mail: what its recipient gets.

The Message-ID comes from the fax alone, so that a mail that had to be sent twice is seen to be one.
"""

from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from vault.domain.faxes import Fax, Numbers


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes into the envelope: `secret` is the entity that S/MIME may encrypt."""

    headers: dict[str, str]
    secret: bytes

    def plain(self) -> bytes:
        """Return the whole message as it goes where no S/MIME is wanted."""
        return self.with_entity(self.secret)

    def with_entity(self, entity: bytes) -> bytes:
        """Return the message with this entity, which begins with its own MIME headers."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return lines.encode("ascii") + entity


def compose(
    fax: Fax, numbers: Numbers, pdf: bytes, *, sender: str, recipient: str, now: datetime
) -> Letter:
    """Return the letter that brings a fax; numbers stand in the secret part alone."""
    pages = "1 page" if fax.pages == 1 else f"{fax.pages} pages"
    inner = EmailMessage(policy=SMTP)
    inner.set_content(
        f"A fax of {pages} came in at {fax.received_at:%Y-%m-%d %H:%M} UTC.\n\n"
        f"From: {numbers.caller or 'a number that was withheld'}\n"
        f"To:   {numbers.callee}\n"
    )
    inner.add_attachment(
        pdf, maintype="application", subtype="pdf", filename=f"fax-{fax.received_at:%Y%m%d}.pdf"
    )
    return Letter(
        headers={
            "From": sender,
            "To": recipient,
            "Subject": f"Fax, {pages}",
            "Date": format_datetime(now),
            "Message-ID": f"<{fax.id}@{sender.rpartition('@')[2]}>",
            # Nobody's holiday notice answers a fax (RFC 3834).
            "Auto-Submitted": "auto-generated",
        },
        secret=inner.as_bytes(),
    )
