"""
The addresses of faxes in mail: `number@fax.domain`, and RFC 3192's `FAX=+number@fax.domain`.

A sub-address (`/T33S=…`) names one of several recipients behind a number; a gateway that cannot
dial it would give the fax to another one, so it is refused.
"""

import re

from vault.domain.fax_numbers import read_number

_GLOBAL = re.compile(r"\+?[0-9][0-9.\-]{5,30}", re.ASCII)


def parse_address(address: str, domains: frozenset[str]) -> str | None:
    """Return the E.164 number of a fax address; None for any other address."""
    local, found, domain = address.rpartition("@")
    if not found or domain.lower().rstrip(".") not in domains:
        return None
    local = local.strip('"')
    if local[:4].upper() == "FAX=":
        local = local[4:]
        # RFC 3192 knows numbers without a plus sign only as local ones, which say nothing here.
        if not local.startswith("+"):
            return None
    if not _GLOBAL.fullmatch(local):
        return None
    return read_number(local if local.startswith("+") else "+" + local)
