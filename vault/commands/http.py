"""Speaks to a vault's HTTP API with a token; what goes wrong is one sentence saying what to do."""

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from keys.ground.secret_files import ExposedError, read_owner_only
from vault.commands.wording import problem_worded
from vault.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    ShreddedError,
    UnauthenticatedError,
    UnavailableError,
    VaultError,
)

IDLE_SECONDS = 60.0
CONNECT_SECONDS = 10.0
TLS_SECONDS = 5.0


class IncidentError(VaultError):
    """The vault failed at this call in a way that it did not foresee; try again."""


class EndedBeforeError(ConflictError):
    """What was sent under this Idempotency-Key before has ended; the vault kept nothing of this."""

    def __init__(self, message: str, earlier: str | None, *, lost: bool) -> None:
        """Say which document or fax it was, and whether a restore left it behind."""
        super().__init__(message)
        self.earlier, self.lost = earlier, lost


#: The type of the problem that what was asked for is damaged at rest.
DAMAGED = "urn:portvault:problem:damaged"
#: The type of the problem that what an Idempotency-Key brought has ended.
KEY_ENDED = "urn:portvault:problem:key-ended"
_ERRORS: dict[int, type[VaultError]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ShreddedError,
    429: LimitError,
    500: IncidentError,
    503: UnavailableError,
}


def server_address(given: str | None = None) -> str:
    """
    Return where the vault is: as given, or as the environment says.

    An address without `http://` or `https://` is plain on this machine, and TLS anywhere else.
    """
    port = os.environ.get("PORTVAULT_PORT") or "8700"
    address = given or os.environ.get("PORTVAULT_SERVER") or f"http://127.0.0.1:{port}"
    if "://" not in address:
        address = _with_scheme(address, port)
    try:
        url = urlsplit(address)
        plain = url.scheme in {"http", "https"} and bool(url.hostname) and url.path in {"", "/"}
        # Looking at a port that is no number raises.
        plain = plain and url.port != 0
    except ValueError:
        plain = False
    if not plain:
        raise ConfigurationError(
            "write the server as https://vault.example or vault.example:8700, without a path"
        )
    return address.rstrip("/")


def _with_scheme(address: str, port: str) -> str:
    try:
        place = urlsplit(f"//{address}")
        host, given = place.hostname or "", place.port
    except ValueError:
        return address
    if host != "localhost" and not is_loopback(host):
        return f"https://{address}"
    return f"http://{address}" if given is not None else f"http://{address.rstrip('/')}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host is an address of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_token() -> bool:
    """Whether the environment names a token."""
    return any(os.environ.get(name) for name in ("PORTVAULT_TOKEN", "PORTVAULT_TOKEN_FILE"))


def token() -> str:
    """Return the token of the environment; raises with what to do where there is none."""
    found = os.environ.get("PORTVAULT_TOKEN", "")
    if not found and (path := os.environ.get("PORTVAULT_TOKEN_FILE")):
        try:
            found = read_owner_only(Path(path))
        except ExposedError as error:
            raise ConfigurationError(str(error)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigurationError(f"the token file {path} cannot be read: {reason}") from None
    found = found.strip()
    if not found:
        raise ConfigurationError(
            "set PORTVAULT_TOKEN or PORTVAULT_TOKEN_FILE; `portvault token create` makes a token"
        )
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise ConfigurationError("the token is not one line of letters and digits; copy it again")
    return found


@asynccontextmanager
async def session(given: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session with a vault; raises `UnavailableError` when the connection fails."""
    async with _session(given, {"Authorization": f"Bearer {token()}"}) as opened:
        yield opened


@asynccontextmanager
async def anonymous() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session without a token, for the calls that need none."""
    async with _session(None, {}) as opened:
        yield opened


@asynccontextmanager
async def _session(
    given: str | None, headers: dict[str, str]
) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS
    )
    address = server_address(given)
    try:
        async with aiohttp.ClientSession(address, headers=headers, timeout=timeout) as opened:
            yield opened
    except aiohttp.ClientConnectorCertificateError as error:
        why = getattr(error.certificate_error, "verify_message", "") or "it does not verify"
        raise UnavailableError(
            f"{address} shows a certificate that this machine does not trust: {why}; where its "
            "authority is your own, name its file in SSL_CERT_FILE"
        ) from None
    except aiohttp.ClientConnectorSSLError:
        raise UnavailableError(
            f"{address} does not speak TLS: write it as http://{urlsplit(address).netloc} where "
            "nobody can listen in between, or check the port"
        ) from None
    except aiohttp.ClientConnectorError:
        raise UnavailableError(
            f"nothing answers at {address}; start `portvault serve` or set PORTVAULT_SERVER"
        ) from None
    except aiohttp.ClientPayloadError:
        raise UnavailableError(
            "the vault cut the answer short, so nothing of it was kept; try again, "
            "and if it stays so tell the operator"
        ) from None
    except (aiohttp.ClientError, aiohttp.ServerTimeoutError) as error:
        if address.startswith("http://") and await _speaks_tls(address):
            raise UnavailableError(
                f"{address} speaks TLS: write it as https://{urlsplit(address).netloc}"
            ) from None
        if isinstance(error, aiohttp.ClientResponseError):
            raise UnavailableError(
                f"what answers at {address} does not speak HTTP; check PORTVAULT_SERVER"
            ) from None
        raise UnavailableError(
            f"{address} ended the connection ({type(error).__name__}); try again, "
            "and if it stays so tell the operator"
        ) from None


async def _speaks_tls(address: str) -> bool:
    """Whether what hung up on plain HTTP takes part in a TLS handshake; nothing is sent in it."""
    place = urlsplit(address)
    look = ssl.create_default_context()
    look.check_hostname, look.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(TLS_SECONDS):
            _, writer = await asyncio.open_connection(place.hostname, place.port or 80, ssl=look)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def check(response: aiohttp.ClientResponse) -> None:
    """Raise what a problem means."""
    if response.status < 300:
        return
    problem: Any = None
    if response.content_type == "application/problem+json":
        problem = await response.json(content_type=None)
    if not isinstance(problem, dict) or "detail" not in problem:
        raise _no_vault(response)
    detail = problem_worded(str(problem["detail"]))
    if "incident" in problem:
        detail += f"; tell the operator of incident {problem['incident']}"
    if problem.get("type") == DAMAGED:
        # Trying again does not help, whatever the status says in general.
        raise VaultError(detail)
    if problem.get("type") == KEY_ENDED:
        earlier = problem.get("fax") or problem.get("document")
        raise EndedBeforeError(detail, earlier, lost=problem.get("state") == "left-behind")
    raise _ERRORS.get(response.status, InvalidRequestError)(detail)


async def call(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Any:
    """Call and return the JSON answer; a token never follows a redirect."""
    async with http.request(method, path, allow_redirects=False, **options) as response:
        return await json_of(response)


async def json_of(response: aiohttp.ClientResponse) -> Any:
    """Return the JSON that was answered; raises what a problem means."""
    await check(response)
    if response.content_type != "application/json":
        raise _no_vault(response)
    return await response.json()


def _no_vault(response: aiohttp.ClientResponse) -> VaultError:
    return UnavailableError(
        f"what answers at {response.url.origin()} with {response.status} is no vault; "
        "check PORTVAULT_SERVER"
    )
