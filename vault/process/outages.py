"""
Says in the log that a part is away: once, then rarely with a count, and once when it works again.

Everything that is tried again and again while a part is away (reconcilers, watches, requests) says
its failures here, so that an outage of an hour is a few lines of the log and not some thousand.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: How long an outage that goes on is not said again, in seconds.
AGAIN_SECONDS = 600.0
#: After so many seconds without a failure, and without a word that it works, the next is a new one.
FORGET_SECONDS = 900.0
#: So many different reasons of one outage are said at once each; further ones wait for their turn.
REASONS_MAX = 8


def named(error: BaseException) -> str:
    """Return the kind of an error and its words, in one line: of a full disk that it is full."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Return what the log says of an error, and of the one that it came from."""
    said = str(error) or type(error).__name__
    return f"{said} ({named(error.__cause__)})" if error.__cause__ is not None else said


@dataclass(slots=True)
class _Outage:
    since: float
    said_at: float
    last_at: float
    failures: int = 0
    reasons: set[str] = field(default_factory=set)


class Outages:
    """The outages that one part of a process knows of, by the name of what fails."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """Say them to `log`; `clock` gives seconds that never go back."""
        self._log, self._clock = log, clock
        self._known: dict[str, _Outage] = {}

    def failed(self, what: str, reason: str, *, level: int = logging.WARNING) -> None:
        """Note a failure of `what`; it is logged when it is new, has a new reason, or is due."""
        now = self._clock()
        known = self._known.get(what)
        if known is None or now - known.last_at > FORGET_SECONDS:
            known = self._known[what] = _Outage(now, now, now)
        new = reason not in known.reasons and len(known.reasons) < REASONS_MAX
        known.failures, known.last_at = known.failures + 1, now
        if new:
            known.reasons.add(reason)
        elif now - known.said_at < AGAIN_SECONDS:
            return
        known.said_at = now
        if known.failures == 1:
            self._log.log(level, "%s: %s", what, reason)
        else:
            self._log.log(
                level,
                "%s: %s (%d failures in %.0f seconds)",
                what,
                reason,
                known.failures,
                now - known.since,
            )

    def works(self, what: str) -> None:
        """Note that `what` worked; it is logged where it had failed before."""
        known = self._known.pop(what, None)
        if known is not None:
            self._log.warning(
                "%s: works again, after %d failures in %.0f seconds",
                what,
                known.failures,
                self._clock() - known.since,
            )
