"""What a fax is, and whether it would be taken; keeps and records nothing."""

from vault.context import Vault
from vault.domain.documents import HEAD_BYTES
from vault.domain.faxes import MEDIA_TYPES, Checked
from vault.errors import ContentRefusedError, TooLargeError, UnsupportedTypeError


async def check_fax(vault: Vault, data: bytes, *, sender: str) -> tuple[str, Checked]:
    """
    Return what the fax is; raises why it would not be taken.

    `sender` is whose turn it is in the sandbox: a principal, or a peer that needs no token.
    """
    if len(data) > vault.config.fax_bytes_max:
        raise fax_too_large(vault.config.fax_bytes_max)
    if not data:
        raise ContentRefusedError("the fax is empty")
    media_type = await vault.sniffer.sniff(data[:HEAD_BYTES], sender=sender)
    if media_type not in MEDIA_TYPES:
        raise UnsupportedTypeError(
            f"the file is {media_type}; a fax must be one of {', '.join(sorted(MEDIA_TYPES))}"
        )
    checked = await vault.sandbox.check(
        data, media_type, pages_max=vault.config.fax_pages_max, sender=sender
    )
    return media_type, checked


def fax_too_large(size_max: int) -> TooLargeError:
    """Return the refusal that names the limit."""
    return TooLargeError(f"a fax may have at most {size_max} bytes")
