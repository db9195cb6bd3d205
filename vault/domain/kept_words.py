"""
Words that outlive what they are about: in certificates and in receipts.

What cannot be changed later holds ids and codes. A reason is a code or the number of a case, and of
what a gateway or a mail server says, only the words of its trade stay. So no name gets there.
"""

import re

from vault.domain.purposes import is_reference
from vault.errors import InvalidRequestError

#: Why somebody has a document shredded, where there is no case that has a number.
SHRED_REASONS = (
    "asked",
    "customer-left",
    "data-subject",
    "duplicate",
    "not-needed",
    "order-ended",
    "sent-by-mistake",
    "superseded",
    "test",
    "unreadable",
    "withdrawn",
    "wrong-document",
)
#: What the reasons of the vault itself begin with.
RETENTION = "retention: "

HIDDEN = "..."
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[^A-Za-z\s]+|\s+", re.ASCII)
#: The vault's own errors, which the relay says.
_OURS = re.compile(r"(?:[A-Z][a-z]+)+Error", re.ASCII)
#: What T.30, HylaFAX, modems and mail servers say of a call or a mail.
_TRADE_WORDS = """
    a abort aborted accept accepted access account active address after again all already an
    and answer answered any at authentication available bad be been blocked box busy by call
    called caller calling cancelled cannot carrier cd closed code collision command
    communication complete completed compression confirm confirmation connect connected
    connection cts data dcd dcn dcs deferred delayed delivered delivery denied detected device
    dial dialing did disabled disc disconnect disconnected disk disruption domain down drop
    dropped dsr ecm empty end eof eom eop error exceeded expected expired failed failure fax
    fcd fcs fcf fht file for found frame from ftt full generation gone got greylisted hang
    hangup has host hung hdlc id in incompatible incoming initialize insufficient internal
    interrupted interval invalid is isdn it job jobs later length level limit limits line link
    load local lock long lost mail mailbox malformed many max maximum mcf message missing
    modem mps negotiation network no none not number of off offline on only open operator or
    other out outgoing over page pages paper parameters permanent permanently permitted phase
    phone pip pin please point policy poor port possible ppr problem procedure process
    protocol quality queue quota reached read receive received receiver recipient recipients
    refused reject rejected remote rejection reply request requested reset resources response
    retrain retry ring rnr rr rtn rtp send sender sending sent server service session short
    signal size space spam speed start starting state station status stopped storage
    successful suspended system tcf telephone temporarily temporary terminated terminator the
    time timed timeout to tone too transfer transient transmission transmit tries try trying
    type unable unavailable undefined unexpected unknown unrecognized unspecified until up use
    user v valid voice wait waiting was while with within write wrong
"""
_TRADE = frozenset(_TRADE_WORDS.split())


def check_shred_reason(text: str) -> str:
    """Return why a document is shredded; raises `InvalidRequestError`, which does not repeat it."""
    if not is_kept_reason(text):
        raise InvalidRequestError(
            f"the reason is the number of a case, or one of {', '.join(SHRED_REASONS)}: it stands "
            "in the certificate for ever, so it is no sentence"
        )
    return text


def is_kept_reason(text: str) -> bool:
    """Whether a reason may stand in a certificate: no words of a person's."""
    return text in SHRED_REASONS or text.startswith(RETENTION) or is_reference(text)


def trade_words(text: str) -> str:
    """Return what a gateway or server said; words that are not of the trade become `...`."""
    shown = "".join(
        word if not word[0].isalpha() or word.lower() in _TRADE or _OURS.fullmatch(word) else HIDDEN
        for word in _WORD.findall(text)
    )
    return re.sub(r"\.{3}(?:[\s\W]*\.{3})+", HIDDEN, shown)
