"""Destroyed root keys that came back to a custodian which the region has left."""

import logging
from collections.abc import Mapping
from contextlib import suppress

from keys.custodian import Custodian
from keys.errors import CustodianConfigurationError, CustodianUnavailableError

log = logging.getLogger(__name__)


async def destroy_elsewhere(custodians: Mapping[str, Custodian], region: str) -> list[int]:
    """
    Destroy the region's root keys that came back to other regions' custodians; returns which.

    Only what such a custodian itself says was destroyed is touched, and only there. One that cannot
    be used is passed over: that is its own region's finding.
    """
    own = custodians[region].name
    others = {custodian.name: custodian for custodian in custodians.values()}
    found = set[int]()
    for name, custodian in others.items():
        if name == own:
            continue
        with suppress(CustodianConfigurationError, CustodianUnavailableError):
            for generation in await custodian.returned(region):
                log.critical(
                    "the destroyed root key of generation %d of %s came back to %s, where the "
                    "region was before; it is destroyed again: find the copy that it came from",
                    generation,
                    region,
                    name,
                )
                found.add(generation)
                await custodian.destroy(region, generation)
    return sorted(found)
