"""What a fax is, and whether it would be taken; keeps and records nothing."""

from vault.actions.fax_memory import fax_too_large
from vault.context import Vault
from vault.domain.faxes import MEDIA_TYPES, Checked
from vault.domain.media import HEAD_BYTES
from vault.errors import ContentRefusedError, UnsupportedTypeError


async def check_fax(vault: Vault, data: bytes) -> tuple[str, Checked]:
    """Return what the fax is; raises why it would not be taken."""
    if len(data) > vault.config.fax_bytes_max:
        raise fax_too_large(vault.config.fax_bytes_max)
    if not data:
        raise ContentRefusedError("the fax is empty")
    media_type = await vault.sniffer.sniff(data[:HEAD_BYTES])
    if media_type not in MEDIA_TYPES:
        raise UnsupportedTypeError(
            f"the file is {media_type}; a fax must be one of {', '.join(sorted(MEDIA_TYPES))}"
        )
    checked = await vault.sandbox.check(data, media_type, pages_max=vault.config.fax_pages_max)
    return media_type, checked
