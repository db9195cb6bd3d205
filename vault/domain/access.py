"""
Who may do what: one pure function from principal, action and circumstances to a decision.

It knows nothing of HTTP and makes no record; `actions/access.py` records what it says.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from vault.domain.documents import Custody
from vault.errors import VaultError

# The number of a case or a ticket: it stands in the access log, so it must not hold a name.
REFERENCE_LENGTH_MAX = 64
_REFERENCE = re.compile(rf"(?=.*[0-9])[A-Za-z0-9._/#-]{{1,{REFERENCE_LENGTH_MAX}}}")


class Role(StrEnum):
    """What a principal is for."""

    PORTING = "porting"
    FAX_GATEWAY = "fax-gateway"
    COMPLIANCE = "compliance"
    DPO = "dpo"
    ADMIN = "admin"


class Action(StrEnum):
    """What can be asked of the vault; the word in the access log, too."""

    ORDER_CREATE = "order.create"
    ORDER_READ = "order.read"
    ORDER_CHANGE = "order.change"
    DOCUMENT_INGEST = "document.ingest"
    DOCUMENT_DESCRIBE = "document.describe"
    DOCUMENT_READ = "document.read"
    DOCUMENT_SHRED = "document.shred"
    FAX_RECEIVE = "fax.receive"
    FAX_READ = "fax.read"
    FAX_DESCRIBE = "fax.describe"
    FAX_DELIVER = "fax.deliver"
    FAX_FAIL = "fax.fail"
    FAX_EXPIRE = "fax.expire"
    CERTIFICATE_READ = "certificate.read"
    LOG_READ = "log.read"
    LOG_EXPORT = "log.export"
    LOG_PROVE = "log.prove"
    LOG_COSIGN = "log.cosign"
    LOG_TRIM = "log.trim"
    LOG_ROTATE_KEY = "log.rotate-key"
    KEYS_READ = "keys.read"
    KEYS_SEAL = "keys.seal"
    KEYS_RESTORE = "keys.restore"
    TOKEN_CREATE = "token.create"
    TOKEN_LIST = "token.list"
    TOKEN_REVOKE = "token.revoke"
    APPROVAL_REQUEST = "approval.request"
    APPROVAL_LIST = "approval.list"
    APPROVAL_APPROVE = "approval.approve"


class Purpose(StrEnum):
    """Why somebody says they read content."""

    VERIFY_IDENTITY = "verify-identity"
    SUBMIT_TO_CARRIER = "submit-to-carrier"
    RESOLVE_EXCEPTION = "resolve-exception"
    DELIVER_FAX = "deliver-fax"
    ANSWER_DATA_SUBJECT = "answer-data-subject"
    DISCLOSE_TO_AUTHORITY = "disclose-to-authority"
    INVESTIGATE_INCIDENT = "investigate-incident"


NEEDS_REFERENCE = frozenset(
    {
        Purpose.ANSWER_DATA_SUBJECT,
        Purpose.DISCLOSE_TO_AUTHORITY,
        Purpose.INVESTIGATE_INCIDENT,
    }
)

# The vault itself: its reconcilers act under retention policy, never on a person's word.
WORKER_ROLE = "worker"

_A = Action
ALLOWED: dict[str, frozenset[Action]] = {
    Role.PORTING: frozenset(
        {
            _A.ORDER_CREATE,
            _A.ORDER_READ,
            _A.ORDER_CHANGE,
            _A.DOCUMENT_INGEST,
            _A.DOCUMENT_DESCRIBE,
            _A.DOCUMENT_READ,
            _A.DOCUMENT_SHRED,
            _A.CERTIFICATE_READ,
            _A.LOG_PROVE,
        }
    ),
    Role.FAX_GATEWAY: frozenset(
        {
            _A.FAX_RECEIVE,
            _A.FAX_READ,
            _A.FAX_DESCRIBE,
            _A.FAX_DELIVER,
            _A.FAX_FAIL,
            _A.LOG_PROVE,
        }
    ),
    Role.COMPLIANCE: frozenset(
        {
            _A.DOCUMENT_DESCRIBE,
            _A.FAX_DESCRIBE,
            _A.CERTIFICATE_READ,
            _A.LOG_READ,
            _A.LOG_EXPORT,
            _A.LOG_PROVE,
            _A.LOG_COSIGN,
            _A.APPROVAL_LIST,
            _A.APPROVAL_APPROVE,
        }
    ),
    Role.DPO: frozenset(
        {
            _A.DOCUMENT_DESCRIBE,
            _A.DOCUMENT_SHRED,
            _A.FAX_DESCRIBE,
            _A.CERTIFICATE_READ,
            _A.APPROVAL_REQUEST,
            _A.APPROVAL_LIST,
            _A.APPROVAL_APPROVE,
            _A.LOG_PROVE,
        }
    ),
    Role.ADMIN: frozenset(
        {
            _A.KEYS_READ,
            _A.KEYS_SEAL,
            _A.KEYS_RESTORE,
            _A.TOKEN_CREATE,
            _A.TOKEN_LIST,
            _A.TOKEN_REVOKE,
            _A.LOG_PROVE,
            _A.LOG_ROTATE_KEY,
            _A.APPROVAL_REQUEST,
            _A.APPROVAL_LIST,
        }
    ),
    WORKER_ROLE: frozenset(
        {
            _A.DOCUMENT_SHRED,
            _A.FAX_READ,
            _A.FAX_DELIVER,
            _A.FAX_FAIL,
            _A.FAX_EXPIRE,
            _A.KEYS_SEAL,
            _A.LOG_TRIM,
        }
    ),
}

PURPOSES: dict[str, frozenset[Purpose]] = {
    Role.PORTING: frozenset(
        {Purpose.VERIFY_IDENTITY, Purpose.SUBMIT_TO_CARRIER, Purpose.RESOLVE_EXCEPTION}
    ),
    Role.FAX_GATEWAY: frozenset({Purpose.DELIVER_FAX}),
    # The relay delivers as the vault itself.
    WORKER_ROLE: frozenset({Purpose.DELIVER_FAX}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an opaque id, a role, and the regions whose things they may know of."""

    id: str
    role: str
    regions: frozenset[str]


class Reason(StrEnum):
    """Why a decision is as it is: the code in the record."""

    ALLOWED = "allowed"
    ROLE = "role-may-not"
    REGION = "outside-own-regions"
    UNKNOWN = "no-such-thing"
    PURPOSE_MISSING = "purpose-missing"
    PURPOSE = "purpose-not-for-role"
    REFERENCE_MISSING = "reference-missing"
    REFERENCE = "reference-not-a-code"
    SHREDDED = "shredded"
    NOT_STORED = "not-stored"
    RECORDS = "records-unavailable"


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow, or deny with the reason."""

    allow: bool
    reason: Reason


def decide(
    principal: Principal,
    action: Action,
    *,
    region: str | None,
    custody: Custody | None = None,
    purpose: str | None = None,
    reference: str | None = None,
) -> Decision:
    """
    Decide whether the principal may do this to a thing of this region and custody.

    `region` is None when there is no such thing, which is refused with the same face as a thing in
    a region that is not theirs.
    """
    if action not in ALLOWED.get(principal.role, frozenset()):
        return Decision(False, Reason.ROLE)
    if region is None:
        return Decision(False, Reason.UNKNOWN)
    if region not in principal.regions:
        return Decision(False, Reason.REGION)
    if action in (Action.DOCUMENT_READ, Action.FAX_READ):
        return _decide_read(principal, custody, purpose, reference)
    return Decision(True, Reason.ALLOWED)


def _decide_read(
    principal: Principal,
    custody: Custody | None,
    purpose: str | None,
    reference: str | None,
) -> Decision:
    if not purpose:
        return Decision(False, Reason.PURPOSE_MISSING)
    if purpose not in PURPOSES.get(principal.role, frozenset()):
        return Decision(False, Reason.PURPOSE)
    if purpose in NEEDS_REFERENCE and not reference:
        return Decision(False, Reason.REFERENCE_MISSING)
    if reference and not _REFERENCE.fullmatch(reference):
        return Decision(False, Reason.REFERENCE)
    if custody in (Custody.SHREDDED, Custody.SEALED):
        return Decision(False, Reason.SHREDDED)
    if custody is not Custody.STORED:
        return Decision(False, Reason.NOT_STORED)
    return Decision(True, Reason.ALLOWED)


def sees_names(principal: Principal) -> bool:
    """Whether file names, which are personal, are shown: only to who may read the content."""
    return Action.DOCUMENT_READ in ALLOWED.get(principal.role, frozenset())


class PurposeError(VaultError):
    """Say why in Access-Purpose; a case or ticket number, where needed, in Access-Reference."""
