"""What an action needs: the `Vault`, and the Protocols its adapters satisfy."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from keys.ground.cache import Cache
from keys.keyring import Keyring
from keys.notes.signing import SigningKeys
from vault.config.settings import Config
from vault.domain.decision import Rules
from vault.domain.fax_mail import Domain, Letter, Route, Routes
from vault.domain.faxes import Checked, Mail
from vault.domain.people import GroupMapping
from vault.domain.records import LogPolicy, Record
from vault.process.meter import Meter, Refused
from vault.process.streams import Streams
from vault.process.watches import DamageWatch, FaxDesk, IntakeMemory, LogWatch
from vault.sql.connection import Pool
from vault.sql.shared import Item, Result, Shared

#: By which name the vault signs notes, whichever region's log they are of.
SIGNER_NAME = "portvault"


#: The object that tells a store from every other one; a directory store looks for this file itself.
STORE_IDENTITY = "store.json"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the store lists it; `modified_at` is aware UTC."""

    name: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """
    A bucket of one region. Not trusted: whoever controls it can at most withhold bytes.

    Names are lower-case ASCII letters, digits, `-`, `_`, `.` and `/`. Failures of the store are
    `ObjectStoreUnavailableError`, raised within a bounded time.
    """

    async def put(self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None) -> None:
        """
        Store the chunks under `name`; durable when it returns.

        `size_bytes` is the exact length where it is known (one request), None where it is not.
        When `chunks` raises, or the task is cancelled, nothing is visible, no part is left behind,
        and the exception passes through unchanged. Memory is bounded whatever the size.
        """

    def get(
        self, name: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the object for reading from `offset`; raises `ObjectMissingError` on entry."""

    async def purge(self, name: str) -> int:
        """Remove every version and delete marker; returns how many there were (0: none)."""

    def list(self, prefix: str = "", *, after: str = "") -> AsyncIterator[StoredObject]:
        """Current objects under the prefix whose names sort after `after`, ascending by name."""

    async def check(self) -> None:
        """Raise when the store cannot be written and read, with a message that says what to do."""

    async def close(self) -> None:
        """Let go of connections."""


class Sniffer(Protocol):
    """Names the type of a file by its first bytes; never trusts what the sender says."""

    async def sniff(self, head: bytes, *, sender: str = "") -> str:
        """Return the media type, `application/octet-stream` where nothing is known."""


class Sandbox(Protocol):
    """
    Looks into what strangers send, in a process of its own with limits.

    Senders have its time in fair shares: `sender` says whose each question is. Raises
    `UnavailableError` where the machine has no room for a process.
    """

    async def check(
        self, data: bytes, media_type: str, *, pages_max: int, sender: str = ""
    ) -> Checked:
        """Return what a fax is; raises `ContentRefusedError` with the reason it is none."""

    async def convert(
        self, data: bytes, media_type: str, *, pages_max: int, sender: str = ""
    ) -> bytes:
        """Return a fax as a PDF that only draws; raises `ContentRefusedError`."""

    async def read_mail(self, mail: bytes, *, attachments_max: int, sender: str = "") -> Mail:
        """Return the faxes in a mail; raises `ContentRefusedError` or `UnsupportedTypeError`."""


class Mailer(Protocol):
    """Hands mail to its next hop."""

    async def send(self, route: Route, domain: Domain, envelope: str, letter: Letter) -> str:
        """Return what the next hop said; raises `MailDeferredError` or `MailRefusedError`."""


class Recorder(Protocol):
    """Makes access records durable; many callers share one commit."""

    async def append(self, record: Record) -> None:
        """Return once the record is durable; raises `RecordsUnavailableError` in bounded time."""

    def append_many(self, records: Sequence[Record]) -> Awaitable[None]:
        """
        Queue the records now and return what is done when all of them are durable.

        Cancelling it before its batch is sent withdraws the records.
        """


class Committer(Protocol):
    """Commits many callers' items together; none of them delays or fails another."""

    async def submit(self, statement: Shared[Item, Result], item: Item) -> Result:
        """Return once it is durable; raises `DatabaseUnavailableError` in bounded time."""


class IdentityProvider(Protocol):
    """
    Who people sign in at. What it says is verified before it is returned.

    Raises `UnauthenticatedError` for what does not verify, `IdentityProviderUnavailableError` when
    it is away.
    """

    @property
    def issuer(self) -> str:
        """What it is called."""

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return where a browser is sent to sign in."""

    async def end_session_url(self, back_to: str) -> str | None:
        """Return where a browser is sent to sign out there, too."""

    async def exchange(
        self, *, code: str, redirect_uri: str, nonce: str, verifier: str
    ) -> Mapping[str, Any]:
        """Return the claims that a code is good for, once."""

    async def logged_out(self, logout_token: str) -> Mapping[str, Any]:
        """Return whom a back-channel log-out speaks of."""


@dataclass(frozen=True, slots=True)
class People:
    """How people come in: their provider, and what its groups mean here."""

    provider: IdentityProvider
    mapping: GroupMapping


class Courier(Protocol):
    """Carries signals to endpoints over the network."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool
    ) -> int:
        """Return the status; raises OSError, ClientError or TimeoutError, in bounded time."""


@dataclass(frozen=True, slots=True)
class Vault:
    """Everything an action needs. Time and ids come from here, so that tests can set them."""

    config: Config
    pool: Pool
    keyring: Keyring
    recorder: Recorder
    committer: Committer
    stores: Mapping[str, ObjectStore]
    sniffer: Sniffer
    sandbox: Sandbox
    mailer: Mailer
    signer: SigningKeys
    courier: Courier
    #: The operator's retention policy; what is in force is what `actions/policy.py` says.
    policy_text: str
    #: How long each region's log keeps what its records say.
    log_policy: LogPolicy
    #: The regions of orders that were looked up lately; an order never changes its region.
    order_regions: Cache[UUID, str]
    rules: Rules
    fax_routes: Routes
    meter: Meter
    #: How long records wait to be published.
    log_watch: LogWatch
    #: What requests met damaged.
    damage_watch: DamageWatch
    streams: Streams
    refused: Refused
    #: None where no identity provider is configured.
    people: People | None
    #: What bodies take of this process's memory.
    memory: IntakeMemory
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    fax_desk: FaxDesk = field(default_factory=FaxDesk)
