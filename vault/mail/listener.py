"""
The SMTP listener: takes mails to fax addresses, each attachment as an outbound fax.

Only those whom the operator named come in: by the address of their connection, or with a token as
their password, over TLS. A mail is accepted with 250 after the vault has every fax of it; whatever
goes wrong before has its SMTP code at the end of the data, and the sending server keeps the mail.
It sends the same again, and what was taken then is known by its Message-ID and its content. The
mail itself is only ever in memory, counted in the account of all bodies, and is taken apart in the
sandbox.
"""

import asyncio
import hashlib
import ipaddress
import logging
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from keys.errors import KeysError
from vault.actions.credentials import TOKEN_PREFIX, authenticate, authenticate_hash, hash_secret
from vault.actions.fax_intake import Incoming, check_fax, receive_fax, recipients_region
from vault.actions.ingest import Pace
from vault.actions.once import KeyReusedError
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal, Role
from vault.domain.fax_mail import parse_host
from vault.domain.faxes import Direction, mask, parse_address
from vault.errors import (
    ConfigurationError,
    ConflictError,
    ContentRefusedError,
    InvalidRequestError,
    TooLargeError,
    TruncatedUploadError,
    UnavailableError,
    UnsupportedTypeError,
    VaultError,
)
from vault.process.listener import Certificate, Connections, Listener, Place, listener
from vault.process.watches import IntakeMemory

CREDENTIALS_BYTES_MAX = 1024
#: A fax in base64, with its line ends, and what else is in a mail.
ENCODED, REST_BYTES = 1.4, 128 * 1024
#: How often a mail is in memory at most: while it is read, then itself and the faxes in it.
COPIES = 2
#: A size that was declared is an estimate; other line ends make it larger.
LINES_BYTES = 64 * 1024
#: With its value in xtext (RFC 3461, 4), or `<>`.
_AUTH = re.compile(r"(?<=\s)AUTH=(<>|[!-~]+)(\s+|$)", re.ASCII | re.IGNORECASE)

# The library would write down addresses, and what went wrong with them.
logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)

_CODES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (TooLargeError, "552 5.3.4 {}"),
    (UnsupportedTypeError, "550 5.6.1 {}"),
    (ContentRefusedError, "550 5.6.0 {}"),
    (KeyReusedError, "550 5.6.0 this Message-ID was used for too many other mails"),
    ((UnavailableError, ConflictError, KeysError, TimeoutError), "451 4.3.0 come again later"),
    (InvalidRequestError, "550 5.1.1 {}"),
    (VaultError, "550 5.7.1 {}"),
)


class FaxHandler:
    """What the library calls at each step of a session."""

    def __init__(self, vault: Vault) -> None:
        config = vault.config
        self._vault = vault
        self._domains = frozenset(name.lower() for name in config.fax_listen_domains)
        self._peers = [ipaddress.ip_network(text) for text in config.fax_listen_peers]

    async def _principal(self, session: Session) -> Principal | None:
        """Return who sends: the holder of a token that is still good, or a peer that was named."""
        signed_in: Any = session.auth_data
        if isinstance(signed_in, bytes):
            known = await authenticate_hash(self._vault, signed_in)
            return known.principal if known else None
        peer: Any = session.peer
        try:
            address = ipaddress.ip_address(peer[0])
        except (TypeError, ValueError):
            return None
        if any(address in peers for peers in self._peers):
            return Principal("smtp", Role.FAX_GATEWAY, frozenset(self._vault.config.regions))
        return None

    async def auth_PLAIN(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802 - aiosmtpd's name
        """Take a token as the password; the library offers this over TLS only."""
        blob: Any = args[1].encode() if len(args) > 1 else await server.challenge_auth("")
        try:
            plain = b64decode(blob, validate=True) if len(args) > 1 else blob
            _, _, secret = plain[:CREDENTIALS_BYTES_MAX].decode("ascii").split("\0")
        except (ValueError, TypeError, AttributeError):
            return AuthResult(success=False, handled=False)
        try:
            known = (
                await authenticate(self._vault, secret) if secret.startswith(TOKEN_PREFIX) else None
            )
        except UnavailableError:
            return AuthResult(success=False, message="454 4.7.0 come again later")
        if known is None or known.certificate is not None:
            return AuthResult(success=False, handled=False)
        # The session may outlive the token, which is looked up again for each mail.
        return AuthResult(success=True, auth_data=hash_secret(secret))

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Let those in who may come."""
        del server
        try:
            if await self._principal(session) is None:
                return "530 5.7.0 sign in with a token, over TLS"
        except UnavailableError:
            return "451 4.3.0 come again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take addresses that are a number's, in a region that is served here."""
        del server
        number = parse_address(address, self._domains)
        if number is None:
            return "550 5.1.1 this is no fax address"
        if len(envelope.rcpt_tos) >= self._vault.config.fax_listen_recipients_max:
            return "452 4.5.3 too many recipients"
        try:
            principal = await self._principal(session)
            if principal is None:
                return "530 5.7.0 sign in with a token, over TLS"
            recipients_region(self._vault, principal, number, None)
        except InvalidRequestError as error:
            return f"550 5.1.1 {error}"
        except UnavailableError:
            return "451 4.3.0 come again later"
        envelope.rcpt_tos.append(number)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Take every fax of the mail for every recipient into custody, and only then say 250."""
        del server
        try:
            principal = await self._principal(session)
            if principal is None:
                return "530 5.7.0 sign in with a token, over TLS"
            async with asyncio.timeout(self._vault.config.fax_receive_seconds_max):
                taken = await self._take(principal, envelope, _sender(principal, session))
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender keeps the mail
            for kinds, code in _CODES:
                if isinstance(error, kinds):
                    return code.format(error)
            logging.getLogger(__name__).error("a mail failed: %s", type(error).__name__)
            return "451 4.3.0 come again later"
        return f"250 2.0.0 in custody: {taken} faxes"

    async def _take(self, principal: Principal, envelope: Envelope, sender: str) -> int:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = await self._vault.sandbox.read_mail(
            content,
            attachments_max=self._vault.config.fax_listen_attachments_max,
            sender=sender,
        )
        name, faxes, count = mail.message_id, mail.faxes, 0
        if len(faxes) > 1:
            # Before the first is taken: a mail that is refused for its last leaves none behind.
            for data in faxes:
                await check_fax(self._vault, data, sender=sender)
        # One may come twice in a mail, and is dialled once.
        for number in dict.fromkeys(envelope.rcpt_tos):
            for position, data in enumerate(faxes):
                incoming = Incoming(
                    body=data,
                    sender=sender,
                    direction=Direction.OUTBOUND,
                    caller=None,
                    callee=number,
                    size_bytes=len(data),
                )
                keys = self._keys(principal, name, number, position, len(data))
                await receive_fax(
                    self._vault,
                    principal,
                    incoming,
                    idempotency_key=keys[0] if keys else None,
                    more_keys=keys[1:],
                )
                count += 1
        return count

    def _keys(
        self, principal: Principal, name: str | None, called: str, position: int, size: int
    ) -> list[str]:
        """
        Return the keys of faxes that look alike in a mail, from what their receipts say anyway.

        Which of them are the same is told by their content: some senders use a Message-ID twice.
        """
        if name is None:
            return []
        masked = mask(called, recipients_region(self._vault, principal, called, None))
        many = range(self._vault.config.fax_listen_same_name_max)
        return [_key(name, masked, position, size, number) for number in many]

    async def handle_exception(self, error: Exception) -> str:
        """Say nothing of what went wrong: it may quote what was being handled."""
        logging.getLogger(__name__).error("an SMTP session failed: %s", type(error).__name__)
        return "451 4.3.0 come again later"


def _sender(principal: Principal, session: Session) -> str:
    """Return whose turn it is in the sandbox: peers without a token are told apart by address."""
    peer, signed_in = cast(Any, session.peer), cast(Any, session.auth_data)
    return principal.id if isinstance(signed_in, bytes) else f"{principal.id} {peer[0]}"


def _declared(options: list[str]) -> int | None:
    """Return the size that MAIL said the mail has (RFC 1870); the library has checked it."""
    sizes = [option[5:] for option in options if option.upper().startswith("SIZE=")]
    return int(sizes[0]) + LINES_BYTES if sizes and sizes[0].isdigit() and int(sizes[0]) else None


def _key(*known: object) -> str:
    return "smtp-" + hashlib.sha256(repr(known).encode("utf-8", "replace")).hexdigest()


class _BoundedSMTP(SMTP):
    """The library's server, of which there are so many at once, and whose mails are counted."""

    open = 0

    def __init__(
        self,
        handler: FaxHandler,
        memory: IntakeMemory,
        config: Config,
        place: Place,
        **options: Any,
    ) -> None:
        super().__init__(handler, timeout=config.idle_seconds, **options)
        self._memory, self._config, self._counted = memory, config, False
        self._place, self._taking = place, False
        #: The connection itself, also where TLS is spoken over it.
        self._plain: asyncio.WriteTransport | None = None

    def is_waiting(self) -> bool:
        """Whether no mail is being taken: what else is lost, its sender says again."""
        return not self._taking

    def cut(self) -> None:
        """End the connection at once."""
        if self._plain is not None:
            self._plain.abort()

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        """Take `AUTH=` as RFC 4954, 5, asks: what it says is not believed, and left out."""
        await super().smtp_MAIL(None if arg is None else _AUTH.sub("", arg))

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        """
        Take a mail, counted in the account of memory while it is there; 451 where there is no room.

        The library would keep an object for each line of it, which is many times its size.
        """
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        envelope = self.envelope
        if envelope is None or not envelope.rcpt_tos:
            await self.push("503 5.5.1 need RCPT command")
            return
        if arg:
            await self.push("501 5.5.4 Syntax: DATA")
            return
        size_max = _declared(envelope.mail_options) or self.data_size_limit or 0
        self._taking = True
        # The library's timer is for the rest between commands; a mail has its own limits.
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        try:
            with self._memory.share(size_max * COPIES):
                await self._take_data(envelope, size_max)
        except UnavailableError as error:
            await self.push(f"451 4.3.1 {error}")
        finally:
            self._taking = False
            cast(Callable[[], None], self._set_post_data_state)()
            if self.transport is not None:
                cast(Callable[[], None], self._reset_timeout)()

    async def _take_data(self, envelope: Envelope, size_max: int) -> None:
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        try:
            content = await self._read_data(size_max)
        except TooLargeError as error:
            await self.push(f"552 5.3.4 {error}")
            return
        except InvalidRequestError as error:
            await self.push(f"500 5.5.2 {error}")
            return
        except TruncatedUploadError as error:
            # Its sender is in the midst of the mail, and takes the connection's end for an answer.
            await self.push(f"421 4.4.2 {error}; come again")
            self._writer.close()
            return
        envelope.content = envelope.original_content = content
        status = await self._call_handler_hook("DATA")
        await self.push(status)

    async def _read_data(self, size_max: int) -> bytes:
        """Return the mail without its dots (RFC 5321, 4.5.2); reads to its end what it refuses."""
        content, begun, pace = bytearray(), True, Pace(self._config)
        refusal: VaultError | None = None

        async def one(seconds: float) -> bytes:
            read: Awaitable[bytes] = self._reader.readuntil(b"\r\n")
            return await asyncio.wait_for(read, seconds)

        while True:
            try:
                line, ends = await pace.within(one), True
            except asyncio.LimitOverrunError as error:
                line, ends = await self._reader.read(error.consumed), False
                pace.add(len(line))
                refusal = refusal or InvalidRequestError("line too long (RFC 5321, 4.5.3.1.6)")
            if begun and line == b".\r\n":
                break
            if len(content) + len(line) > size_max:
                refusal = refusal or TooLargeError(
                    f"the mail is larger than {size_max} bytes: send its faxes as several mails"
                )
            if refusal is not None:
                content.clear()
            else:
                content += line[1:] if begun and line.startswith(b".") else line
            begun = ends
        if refusal is not None:
            raise refusal
        return bytes(content)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Called again when TLS starts.
        if self._plain is None:
            self._plain = cast(asyncio.WriteTransport, transport)
            self._place.holder = self
        if not self._counted:
            if _BoundedSMTP.open >= self._config.fax_listen_connections_max:
                refused = cast(asyncio.WriteTransport, transport)
                refused.write(b"421 4.3.2 too many connections, come again later\r\n")
                refused.close()
                return
            self._counted = True
            _BoundedSMTP.open += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._counted:
            self._counted = False
            _BoundedSMTP.open -= 1
            super().connection_lost(error)

    def eof_received(self) -> bool | None:
        closes: bool | None = super().eof_received() if self._counted else None
        return closes

    def data_received(self, data: bytes) -> None:
        if self._counted:
            super().data_received(data)


@asynccontextmanager
async def listening(vault: Vault, connections: Connections) -> AsyncIterator[str | None]:
    """Listen where the configuration says so; yields the address, None where it does not."""
    config = vault.config
    if not config.fax_listen:
        yield None
        return
    host, port = parse_host(config.fax_listen, "fax_listen", port_min=0)
    if not config.fax_listen_domains or not (
        config.fax_listen_certificate or config.fax_listen_peers
    ):
        raise ConfigurationError(
            "fax_listen needs fax_listen_domains, and fax_listen_certificate or fax_listen_peers"
        )
    certificate = _certificate(config)
    handler = FaxHandler(vault)
    size_max = int(config.fax_bytes_max * ENCODED) + REST_BYTES

    def answer(place: Place) -> _BoundedSMTP:
        return _BoundedSMTP(
            handler,
            vault.memory,
            config,
            place,
            data_size_limit=size_max,
            ident="fax gateway",
            hostname=config.fax_listen_domains[0],
            tls_context=certificate.context() if certificate else None,
            auth_require_tls=True,
            auth_exclude_mechanism=["LOGIN"],
            loop=asyncio.get_running_loop(),
        )

    keeping = asyncio.create_task(certificate.keep()) if certificate else None
    try:
        async with listener(Listener(connections, answer)) as made:
            try:
                bound = await made.listen(host, port)
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on {config.fax_listen}: {error.strerror}"
                ) from error
            yield f"smtp://{host}:{bound}"
    finally:
        if keeping is not None:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping


def _certificate(config: Config) -> Certificate | None:
    if not config.fax_listen_certificate:
        return None
    return Certificate(
        config.fax_listen_certificate,
        config.fax_listen_key,
        setting="fax_listen_certificate",
        http=False,
    )
