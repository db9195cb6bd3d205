"""The HTTP of a transit engine, and what its answers mean."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from keys.custodians.secret_file import read_secret
from keys.errors import CustodianConfigurationError, CustodianUnavailableError

LIMIT_SECONDS = 10.0
_PARAMETERS = {"token-file", "ca-file"}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_EXAMPLE = "transit:https://HOST:8200/MOUNT?token-file=/PATH"


class RefusedError(Exception):
    """The server calls a request mistaken; the message is its own."""


class TransitServer:
    """One mount of a server, and who calls it."""

    def __init__(self, place: str) -> None:
        self.url, parameters = _parse(place)
        self._token_file = Path(parameters["token-file"])
        self._ca_file = parameters.get("ca-file")
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"TransitServer({self.url})"

    @property
    def name(self) -> str:
        """Return the address, without what opens it."""
        return f"transit:{self.url.replace('/v1/', '/')}"

    async def close(self) -> None:
        """Let go of the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        fields: dict[str, Any] | None = None,
        missing: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """
        Call the engine and return what it answers; `missing` stands for what is not there.

        Raises `RefusedError` for what the server calls a mistake in the request.
        """
        status, value, active = await self._ask(method, f"{self.url}/{path}", fields)
        if active is not None:
            status, value, _ = await self._ask(method, active, fields)
        if status in {200, 204}:
            return dict(value.get("data") or {})
        said = "; ".join(str(item) for item in value.get("errors") or [])
        if status == 404 and missing is not None and not said:
            return missing
        raise self._failure(status, said)

    async def _ask(
        self, method: str, url: str, fields: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any], str | None]:
        """Return status and answer; of a standby's also where the active server is."""
        # Each of the two reads files, which nothing does on the loop.
        token = await asyncio.to_thread(read_secret, self._token_file, "token")
        session = await self._connected()
        headers = {"X-Vault-Token": token}
        try:
            async with session.request(
                method, url, json=fields, headers=headers, allow_redirects=False
            ) as answer:
                value = _decoded(await answer.read())
                return answer.status, value, _active(url, answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CustodianUnavailableError(
                f"{self.name} does not answer ({type(error).__name__}): see that it runs and that "
                "its certificate is trusted; it is asked again"
            ) from None

    def _failure(self, status: int, said: str) -> Exception:
        if status == 403:
            return CustodianConfigurationError(
                f"{self.name} refuses the token in {self._token_file}: put one there that has the "
                "policy in docs/operations.md and has not expired"
            )
        if status == 404 and "no handler for route" in said:
            return CustodianConfigurationError(
                f"there is no transit engine at {self.url}: bao secrets enable "
                f"-path={self.mount} transit"
            )
        if status == 503 and "sealed" in said:
            return CustodianUnavailableError(f"{self.name} is sealed: unseal it")
        if status == 503:
            return CustodianUnavailableError(
                f"{self.name} answers 503, not in its own words: a load balancer may stand there "
                "that finds no server; see its log"
            )
        if status in {307, 308, 429, 472, 473}:
            return CustodianUnavailableError(
                f"{self.name} answers {status}: it is a standby, or limits its callers; give the "
                "address of the active server, or of a load balancer that finds it"
            )
        if status in {400, 404}:
            return RefusedError(said)
        return CustodianUnavailableError(f"{self.name} answers {status}: see its log")

    @property
    def mount(self) -> str:
        """Return the path of the engine."""
        return urlsplit(self.url).path.removeprefix("/v1/")

    async def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            trust = await self._trust()
            # Another call may have been here meanwhile.
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=trust),
                    timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS),
                )
        return self._session

    async def _trust(self) -> ssl.SSLContext | bool:
        if self._ca_file is None:
            return True
        try:
            return await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_file)
        except OSError as error:
            raise CustodianConfigurationError(
                f"the certificates in {self._ca_file} cannot be read: {error.strerror}"
            ) from None


def _active(url: str, answer: aiohttp.ClientResponse) -> str | None:
    """
    Return where a standby sends its callers: the same path of another server, as well protected.

    The token goes along, so nothing else is followed, and that only once.
    """
    if answer.status not in {307, 308}:
        return None
    asked, told = urlsplit(url), urlsplit(answer.headers.get("Location", ""))
    safe = told.scheme == "https" or (told.scheme == "http" and told.hostname in _LOOPBACK)
    same = (told.path, told.query, told.username) == (asked.path, asked.query, None)
    return told.geturl() if safe and same and told.hostname else None


def _decoded(body: bytes) -> dict[str, Any]:
    """Return the answer's object; what is none says nothing."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _parse(place: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(place)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    mount = parts.path.strip("/")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not mount:
        raise CustodianConfigurationError(f"write the custodian as {_EXAMPLE}")
    if parts.username is not None or parts.password is not None or set(given) - _PARAMETERS:
        raise CustodianConfigurationError(
            f"a transit: custodian knows only {', '.join(sorted(_PARAMETERS))}: write {_EXAMPLE}"
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise CustodianConfigurationError(
            "a transit: custodian sends its token over https: only, except to this machine"
        )
    if not all(value.startswith("/") for value in (given.get("token-file", ""), *given.values())):
        raise CustodianConfigurationError(f"name the file that holds the token: {_EXAMPLE}")
    return f"{parts.scheme}://{parts.netloc}/v1/{mount}", given
