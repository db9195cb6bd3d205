"""What lies in a bucket and does not verify: it is passed over, named and counted."""

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)

#: So many names are kept of each kind of thing; the count is of all.
NAMED_MAX = 20


class PassedOver:
    """The objects that the last look at each region's bucket could not verify, by their kind."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}

    def note(self, region: str, kind: str, names: Sequence[str]) -> None:
        """Replace what the look before found of a kind, such as `keys/`; says what is new."""
        found = len(names), tuple(names[-NAMED_MAX:])
        if found != self._found.get((region, kind), (0, ())):
            log.warning(
                "%d objects under %s in the bucket of %s do not verify and are passed over: %s",
                len(names),
                kind,
                region,
                ", ".join(found[1]) or "none any more",
            )
        self._found[region, kind] = found

    def count(self, region: str) -> int:
        """Return how many objects of a region's bucket are passed over."""
        return sum(found[0] for (name, _), found in self._found.items() if name == region)

    def names(self, region: str) -> list[str]:
        """Return the names of the newest of them."""
        return [
            item for (name, _), found in self._found.items() if name == region for item in found[1]
        ]
