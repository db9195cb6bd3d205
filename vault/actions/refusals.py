"""What a decision that refuses means to who asked."""

from vault.domain.access import PurposeError
from vault.domain.decision import HIDDEN, Decision, Reason
from vault.errors import (
    ConflictError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    RecordsUnavailableError,
    ResidencyError,
    RestrictedError,
    ShreddedError,
    StreamAgeError,
    UnauthenticatedError,
    VaultError,
)
from vault.meter import Exceeded

_REFUSALS: dict[Reason, type[VaultError]] = {
    Reason.PURPOSE_MISSING: PurposeError,
    Reason.REFERENCE_MISSING: PurposeError,
    Reason.REFERENCE: PurposeError,
    Reason.SHREDDED: ShreddedError,
    Reason.NOT_STORED: ConflictError,
    Reason.RESTRICTED: RestrictedError,
    Reason.TRANSFER: ResidencyError,
    Reason.RECORDS: RecordsUnavailableError,
    Reason.ENDED: UnauthenticatedError,
    Reason.AGE: StreamAgeError,
}


def refused_too_often(retry_after_seconds: int) -> LimitError:
    """Return what a refusal raises that is only counted, see `vault/refused.py`."""
    error = LimitError("too much of what you asked for was refused; see why, and ask again later")
    error.retry_after_seconds = retry_after_seconds
    return error


def refusal(decision: Decision, over: Exceeded | None) -> VaultError:
    """Return what a refused action raises; what is hidden looks as if there were no such thing."""
    reason, detail = decision.reason, decision.detail
    if reason is Reason.LIMIT and over is not None:
        error = LimitError(detail)
        error.retry_after_seconds = over.retry_after_seconds
        return error
    if reason in HIDDEN and detail is None:
        return NotFoundError()
    return _REFUSALS.get(reason, ForbiddenError)(detail)
