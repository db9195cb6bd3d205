"""
Root keys in the transit engine of OpenBao or Vault, over HTTP.

`transit:https://HOST:8200/MOUNT?token-file=/PATH`, with `&ca-file=/PATH` where the server's
certificate is signed by an authority of one's own. A generation is a key `portvault-REGION-NUMBER`
of the engine, not exportable; the server wraps and unwraps, the key never comes here. It is
destroyed by allowing its deletion and deleting it.

A deleted key leaves no trace, so a key `portvault-REGION-destroyed-NUMBER`, which wraps nothing, is
made first: its name says up to which number all that is not there was destroyed. The one before it
is deleted afterwards. Where there is neither key nor mark, the mount is another or was emptied, and
that is "unavailable", not destruction.
"""

import asyncio
import base64
import binascii
import json
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from keys import wrap as keys_wrap
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
)
from keys.ground.secret_files import read_secret

# ---- The HTTP of a transit engine, and what its answers mean. -----------------------------------

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


# ---- Transit. -----------------------------------------------------------------------------------

PREFIX = "portvault"
_NAME = re.compile(rf"{PREFIX}-([a-z]+)-(destroyed-)?([0-9]+)")


class TransitCustodian:
    """Root keys in a mount of the transit engine."""

    destroy_level = 0
    destroy_promise = (
        "The key was deleted from the transit engine; a snapshot or another backup of the server's "
        "storage may still hold it."
    )

    def __init__(self, place: str) -> None:
        self._server = TransitServer(place)

    def __repr__(self) -> str:
        return f"TransitCustodian({self._server.url})"

    @property
    def name(self) -> str:
        """Return the address, without what opens it."""
        return self._server.name

    async def create(self, region: str, generation: int) -> None:
        """Make the key; the server keeps one that is there as it is."""
        living, destroyed = await self._found(region)
        if generation in living:
            return
        if generation <= destroyed:
            raise KeyDestroyedError(f"generation {generation} of {region} was destroyed")
        await self._make(_key(region, generation))

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Have the server encrypt a key under the generation."""
        if len(key) != keys_wrap.KEY_BYTES:
            raise IntegrityError
        fields = {"plaintext": _text(key), "associated_data": _text(context)}
        try:
            data = await self._server.call("POST", f"encrypt/{_key(region, generation)}", fields)
        except RefusedError:
            await self._require(region, generation)
            raise IntegrityError from None
        return str(data["ciphertext"]).encode()

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Have the server decrypt what `wrap` made."""
        fields = {
            "ciphertext": wrapped.decode("ascii", errors="replace"),
            "associated_data": _text(context),
        }
        try:
            data = await self._server.call("POST", f"decrypt/{_key(region, generation)}", fields)
        except RefusedError:
            await self._require(region, generation)
            raise IntegrityError from None
        try:
            key = base64.b64decode(data["plaintext"], validate=True)
        except (binascii.Error, ValueError):
            raise IntegrityError from None
        if len(key) != keys_wrap.KEY_BYTES:
            raise IntegrityError
        return key

    async def destroy(self, region: str, generation: int) -> None:
        """Mark the number as destroyed, then delete the key, and the marks before."""
        _, destroyed = await self._found(region)
        # The mark is first: a crash after it leaves a key that is destroyed again, not made again.
        if generation > destroyed:
            await self._make(_mark(region, generation))
        await self._delete(_key(region, generation))
        for number in (await self._numbers(region))[1]:
            if number < max(generation, destroyed):
                await self._delete(_mark(region, number))

    async def generations(self, region: str) -> list[int]:
        """Return the living generations."""
        living, _ = await self._found(region)
        return living

    async def returned(self, region: str) -> list[int]:
        """Return nothing: a key below the mark is one that was not destroyed, as far as it says."""
        del region
        return []

    async def last_destroyed(self, region: str) -> int:
        """Return the highest number that was destroyed."""
        _, destroyed = await self._found(region)
        return destroyed

    async def check(self) -> None:
        """Raise when the server is away or refuses, or when a key of ours could leave it."""
        config = await self._server.call("GET", "config/keys")
        if not config.get("disable_upsert"):
            raise CustodianConfigurationError(
                f"{self.name} makes keys that nobody asked for: bao write "
                f"{self._server.mount}/config/keys disable_upsert=true"
            )
        names = await self._names()
        ours = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
        marks = [(match[1], int(match[3])) for _, match in ours if match[2]]
        for name, match in ours:
            region, number = match[1], int(match[3])
            # One up to the mark came back, or is to be destroyed: a refusal would let it lie.
            if match[2] or any(each == region and number <= mark for each, mark in marks):
                continue
            key = await self._server.call("GET", f"keys/{name}")
            if key.get("exportable") or key.get("allow_plaintext_backup"):
                raise CustodianConfigurationError(
                    f"the key {name} of {self.name} can be copied out of the server, so that "
                    "destroying it is worth nothing: move the region to a mount whose keys this "
                    "vault makes"
                )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._server.close()

    async def _require(self, region: str, generation: int) -> None:
        """Raise unless the key is there."""
        living, destroyed = await self._found(region)
        if generation in living:
            return
        if not living and not destroyed:
            raise CustodianUnavailableError(
                f"{self.name} holds no root keys of {region}: see that it is the right mount, or "
                "bring the keys back"
            )
        if generation > destroyed:
            raise KeyMissingError(self.name, region, generation)
        raise KeyDestroyedError

    async def _found(self, region: str) -> tuple[list[int], int]:
        """Return the living generations, and the highest number that was destroyed."""
        living, marks = await self._numbers(region)
        return living, max(marks, default=0)

    async def _numbers(self, region: str) -> tuple[list[int], list[int]]:
        """Return the numbers of the keys and of the marks."""
        found = [match for name in await self._names() if (match := _NAME.fullmatch(name))]
        ours = [(match[2], int(match[3])) for match in found if match[1] == region]
        living = sorted(number for mark, number in ours if not mark)
        return living, [number for mark, number in ours if mark]

    async def _names(self) -> list[str]:
        data = await self._server.call("GET", "keys?list=true", missing={"keys": []})
        return [str(name) for name in data.get("keys", [])]

    async def _make(self, name: str) -> None:
        fields = {"type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False}
        await self._change("POST", f"keys/{name}", fields)

    async def _delete(self, name: str) -> None:
        """Delete a key; one that is not there is no failure."""
        try:
            await self._server.call("POST", f"keys/{name}/config", {"deletion_allowed": True})
            await self._server.call("DELETE", f"keys/{name}")
        except RefusedError as refusal:
            if name in await self._names():
                raise CustodianUnavailableError(f"{self.name} keeps {name}: {refusal}") from None

    async def _change(self, method: str, path: str, fields: dict[str, Any]) -> None:
        try:
            await self._server.call(method, path, fields)
        except RefusedError as refusal:
            raise CustodianUnavailableError(f"{self.name} refuses {path}: {refusal}") from None


def _key(region: str, generation: int) -> str:
    return f"{PREFIX}-{region}-{generation}"


def _mark(region: str, number: int) -> str:
    return f"{PREFIX}-{region}-destroyed-{number}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
