"""Who may do what at all: roles, actions, and who has which; the decision is in `decision.py`."""

from dataclasses import dataclass
from enum import StrEnum

from vault.errors import VaultError


class Role(StrEnum):
    """What a principal is for."""

    PORTING = "porting"
    FAX_GATEWAY = "fax-gateway"
    COMPLIANCE = "compliance"
    WITNESS = "witness"
    AUDITOR = "auditor"
    DPO = "dpo"
    ADMIN = "admin"


class Action(StrEnum):
    """What can be asked of the vault; the word in the access log, too."""

    ORDER_CREATE = "order.create"
    ORDER_READ = "order.read"
    ORDER_NUMBERS = "order.numbers"
    ORDER_LIST = "order.list"
    ORDER_CHANGE = "order.change"
    ORDER_CORRECT = "order.correct"
    ORDER_LINK = "order.link"
    ORDER_EVENT = "order.event"
    ORDER_REINDEX = "order.reindex"
    ORDER_FORGET = "order.forget"
    DOCUMENT_INGEST = "document.ingest"
    DOCUMENT_DESCRIBE = "document.describe"
    DOCUMENT_READ = "document.read"
    DOCUMENT_CORRECT = "document.correct"
    DOCUMENT_SHRED = "document.shred"
    FAX_RECEIVE = "fax.receive"
    FAX_READ = "fax.read"
    FAX_DESCRIBE = "fax.describe"
    FAX_DELIVER = "fax.deliver"
    FAX_FAIL = "fax.fail"
    FAX_EXPIRE = "fax.expire"
    DOCUMENT_RESTRICT = "document.restrict"
    DOCUMENT_UNRESTRICT = "document.unrestrict"
    CERTIFICATE_READ = "certificate.read"
    CERTIFICATE_READ_ORDER = "certificate.read-order"
    CERTIFICATE_ISSUE = "certificate.issue"
    HOLD_PLACE = "hold.place"
    HOLD_READ = "hold.read"
    HOLD_RELEASE = "hold.release"
    INSTRUCTION_GIVE = "instruction.give"
    INSTRUCTION_READ = "instruction.read"
    INSTRUCTION_RESOLVE = "instruction.resolve"
    INSTRUCTION_WITHDRAW = "instruction.withdraw"
    EXPIRY_RESUME = "expiry.resume"
    RETENTION_PLAN = "retention.plan"
    SIGNAL_READ = "signal.read"
    SIGNAL_REPLAY = "signal.replay"
    POLICY_READ = "policy.read"
    POLICY_APPLY = "policy.apply"
    LOG_READ = "log.read"
    LOG_EXPORT = "log.export"
    LOG_PROVE = "log.prove"
    LOG_COSIGN = "log.cosign"
    LOG_TRIM = "log.trim"
    LOG_ROTATE_KEY = "log.rotate-key"
    LOG_FORGET_NAME = "log.forget-name"
    BACKUP_CREATE = "backup.create"
    KEYS_READ = "keys.read"
    KEYS_SEAL = "keys.seal"
    KEYS_RESTORE = "keys.restore"
    DAMAGE_LOOK = "damage.look"
    DAMAGE_REPAIR = "damage.repair"
    TOKEN_CREATE = "token.create"
    TOKEN_LIST = "token.list"
    TOKEN_RENAME = "token.rename"
    TOKEN_REVOKE = "token.revoke"
    BREAK_GLASS_SEAL = "break-glass.seal"
    BREAK_GLASS_OPEN = "break-glass.open"
    BREAK_GLASS_LIST = "break-glass.list"
    BREAK_GLASS_REVOKE = "break-glass.revoke"
    SESSION_BEGIN = "session.begin"
    SESSION_END = "session.end"
    APPROVAL_REQUEST = "approval.request"
    APPROVAL_LIST = "approval.list"
    APPROVAL_APPROVE = "approval.approve"
    APPROVAL_DECLINE = "approval.decline"
    APPROVAL_WITHDRAW = "approval.withdraw"


class Purpose(StrEnum):
    """Why somebody says they read content."""

    VERIFY_IDENTITY = "verify-identity"
    SUBMIT_TO_CARRIER = "submit-to-carrier"
    RESOLVE_EXCEPTION = "resolve-exception"
    DELIVER_FAX = "deliver-fax"
    ANSWER_DATA_SUBJECT = "answer-data-subject"
    DISCLOSE_TO_AUTHORITY = "disclose-to-authority"
    INVESTIGATE_INCIDENT = "investigate-incident"


# The vault itself: its reconcilers act under retention policy, never on a person's word.
WORKER_ROLE = "worker"
# A carrier that its signature vouches for: it says where orders stand, and learns nothing.
CARRIER_ROLE = "carrier"

_A = Action
ALLOWED: dict[str, frozenset[Action]] = {
    Role.PORTING: frozenset(
        {
            _A.ORDER_CREATE,
            _A.ORDER_READ,
            _A.ORDER_NUMBERS,
            _A.ORDER_LIST,
            _A.ORDER_CHANGE,
            _A.ORDER_CORRECT,
            _A.ORDER_LINK,
            _A.DOCUMENT_INGEST,
            _A.DOCUMENT_DESCRIBE,
            _A.DOCUMENT_READ,
            _A.DOCUMENT_SHRED,
            _A.DOCUMENT_CORRECT,
            _A.APPROVAL_REQUEST,
            _A.APPROVAL_WITHDRAW,
            _A.APPROVAL_LIST,
            _A.CERTIFICATE_READ,
            _A.CERTIFICATE_READ_ORDER,
            _A.LOG_PROVE,
            _A.BREAK_GLASS_OPEN,
            _A.SESSION_BEGIN,
            _A.SESSION_END,
            _A.INSTRUCTION_GIVE,
            _A.INSTRUCTION_READ,
            _A.RETENTION_PLAN,
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
            _A.CERTIFICATE_READ_ORDER,
            _A.LOG_READ,
            _A.LOG_EXPORT,
            _A.LOG_PROVE,
            _A.LOG_COSIGN,
            _A.HOLD_READ,
            _A.INSTRUCTION_READ,
            _A.RETENTION_PLAN,
            _A.POLICY_READ,
            _A.APPROVAL_LIST,
            _A.APPROVAL_APPROVE,
            _A.APPROVAL_DECLINE,
            _A.BREAK_GLASS_LIST,
            _A.BREAK_GLASS_REVOKE,
            _A.BREAK_GLASS_OPEN,
            _A.SESSION_BEGIN,
            _A.SESSION_END,
        }
    ),
    # Parties outside: one cosigns what it saw, the other takes the log away. Neither decides.
    Role.WITNESS: frozenset({_A.LOG_PROVE, _A.LOG_COSIGN}),
    Role.AUDITOR: frozenset({_A.LOG_PROVE, _A.LOG_EXPORT}),
    Role.DPO: frozenset(
        {
            _A.DOCUMENT_DESCRIBE,
            _A.DOCUMENT_SHRED,
            _A.DOCUMENT_CORRECT,
            _A.FAX_DESCRIBE,
            _A.DOCUMENT_RESTRICT,
            _A.DOCUMENT_UNRESTRICT,
            _A.CERTIFICATE_READ,
            _A.CERTIFICATE_READ_ORDER,
            _A.HOLD_PLACE,
            _A.HOLD_READ,
            _A.HOLD_RELEASE,
            _A.INSTRUCTION_GIVE,
            _A.INSTRUCTION_READ,
            _A.INSTRUCTION_RESOLVE,
            _A.INSTRUCTION_WITHDRAW,
            _A.RETENTION_PLAN,
            _A.POLICY_READ,
            _A.APPROVAL_REQUEST,
            _A.APPROVAL_WITHDRAW,
            _A.APPROVAL_LIST,
            _A.APPROVAL_APPROVE,
            _A.APPROVAL_DECLINE,
            _A.BREAK_GLASS_LIST,
            _A.BREAK_GLASS_REVOKE,
            _A.LOG_PROVE,
            _A.BREAK_GLASS_OPEN,
            _A.SESSION_BEGIN,
            _A.SESSION_END,
        }
    ),
    Role.ADMIN: frozenset(
        {
            _A.KEYS_READ,
            _A.KEYS_SEAL,
            _A.KEYS_RESTORE,
            _A.DAMAGE_LOOK,
            _A.DAMAGE_REPAIR,
            _A.TOKEN_CREATE,
            _A.TOKEN_LIST,
            _A.TOKEN_RENAME,
            _A.TOKEN_REVOKE,
            _A.LOG_PROVE,
            _A.LOG_ROTATE_KEY,
            _A.LOG_FORGET_NAME,
            _A.BACKUP_CREATE,
            _A.POLICY_READ,
            _A.POLICY_APPLY,
            _A.SIGNAL_READ,
            _A.SIGNAL_REPLAY,
            _A.APPROVAL_REQUEST,
            _A.APPROVAL_WITHDRAW,
            _A.APPROVAL_LIST,
            _A.BREAK_GLASS_SEAL,
            _A.BREAK_GLASS_LIST,
            _A.BREAK_GLASS_REVOKE,
            _A.BREAK_GLASS_OPEN,
            _A.SESSION_BEGIN,
            _A.SESSION_END,
        }
    ),
    CARRIER_ROLE: frozenset({_A.ORDER_EVENT}),
    WORKER_ROLE: frozenset(
        {
            _A.ORDER_REINDEX,
            _A.ORDER_FORGET,
            _A.DOCUMENT_SHRED,
            _A.FAX_READ,
            _A.FAX_DELIVER,
            _A.FAX_FAIL,
            _A.FAX_EXPIRE,
            _A.EXPIRY_RESUME,
            _A.KEYS_SEAL,
            _A.DAMAGE_LOOK,
            _A.LOG_TRIM,
            _A.CERTIFICATE_ISSUE,
        }
    ),
}

#: Who may open an envelope for the day the identity provider is down: roles of people alone.
BREAK_GLASS_ROLES = [role for role in Role if _A.BREAK_GLASS_OPEN in ALLOWED[role]]

#: What hands out content: it needs a purpose, and a basis where it leaves its region.
CONTENT = frozenset({_A.DOCUMENT_READ, _A.FAX_READ})
#: What is done for a stated purpose: content, and the full numbers of an order.
PURPOSED = CONTENT | {_A.ORDER_NUMBERS}
#: What opens what lies encrypted, names and references too, and so may not leave its region either.
OPENING = PURPOSED | {_A.ORDER_READ, _A.ORDER_CHANGE, _A.ORDER_CORRECT}
#: What shows file names to who may see them.
NAMING = frozenset({_A.DOCUMENT_DESCRIBE})

#: What carries bytes out as a stream: each is looked at again while it flows, and cut.
OUTGOING = CONTENT | {_A.LOG_EXPORT}
#: What carries bytes in as a stream; it is cut, too, when who brings it may no more.
INCOMING = frozenset({_A.DOCUMENT_INGEST, _A.FAX_RECEIVE})
STREAMS = OUTGOING | INCOMING

#: What is about a region that the caller names, and not about a thing that lies in one: where it is
#: not one of his, that is said, since it tells of nothing that is there.
REGIONAL = frozenset(
    {
        _A.ORDER_CREATE,
        _A.ORDER_LIST,
        _A.FAX_RECEIVE,
        _A.HOLD_PLACE,
        _A.INSTRUCTION_GIVE,
        _A.APPROVAL_REQUEST,
        _A.TOKEN_CREATE,
        _A.BREAK_GLASS_SEAL,
        _A.KEYS_READ,
        _A.KEYS_SEAL,
        _A.LOG_READ,
        _A.LOG_EXPORT,
        _A.LOG_PROVE,
        _A.LOG_COSIGN,
    }
)

#: What brings something new in.
BRINGING = frozenset({_A.ORDER_CREATE})

#: What takes the right to every region that it names, and not only to the first.
REACHING = frozenset(
    {
        _A.TOKEN_CREATE,
        _A.TOKEN_RENAME,
        _A.TOKEN_REVOKE,
        _A.BREAK_GLASS_SEAL,
        _A.BACKUP_CREATE,
    }
)

#: What a principal of some kinds may do: what looks at which kind it is. All else might show them
#: what is not theirs, or reach it: a carrier's name for an order is taken from all other customers.
BY_KIND = frozenset(
    {
        _A.ORDER_CREATE,
        _A.ORDER_READ,
        _A.ORDER_LIST,
        _A.ORDER_CHANGE,
        _A.DOCUMENT_INGEST,
        _A.DOCUMENT_DESCRIBE,
        _A.DOCUMENT_READ,
        _A.DOCUMENT_SHRED,
        _A.DOCUMENT_CORRECT,
        _A.CERTIFICATE_READ,
        _A.LOG_PROVE,
    }
)
#: What a principal of some customers may do: what looks at whose it is.
BY_CUSTOMER = BY_KIND | {
    # They are of the order, and no document of some kind.
    _A.ORDER_NUMBERS,
    # It is about the order of documents of every kind.
    _A.ORDER_CORRECT,
    # It names documents of every kind.
    _A.CERTIFICATE_READ_ORDER,
    _A.INSTRUCTION_GIVE,
    _A.INSTRUCTION_READ,
    _A.RETENTION_PLAN,
}

#: Who may read content as a matter of course; whatever policy says, nobody else does.
READERS = frozenset({Role.PORTING, Role.FAX_GATEWAY, WORKER_ROLE})

#: What a role may do only when somebody else has agreed to it.
APPROVED_ONLY: dict[str, frozenset[Action]] = {Role.DPO: frozenset({_A.DOCUMENT_READ})}


@dataclass(frozen=True, slots=True)
class Principal:
    """
    Who asks: an opaque id, a role, and how far their need to know goes.

    What is None is not narrowed: all customers, all kinds.
    """

    id: str
    role: str
    regions: frozenset[str]
    customers: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    #: The region they read from; None is their only region, or else the deployment's.
    located: str | None = None


class PurposeError(VaultError):
    """Say why in Access-Purpose; a case or ticket number, where needed, in Access-Reference."""
