"""
A token behind a PKCS#11 library, with a session that is opened again when it was lost.

A library is the process's, not a custodian's: it is initialised once, its login holds for all
sessions, and nothing says that it stands calls from two threads. So there is one `Library` for each
path, with one thread, and one `Token` in it for all custodians that mean the same.
"""

import asyncio
import contextlib
import getpass
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import pkcs11
from pkcs11 import exceptions as p11

from keys.custodians.calls import CallThread
from keys.errors import CustodianConfigurationError, CustodianUnavailableError
from keys.ground.secret_files import read_secret

# ---- The address of a token (RFC 7512). ---------------------------------------------------------
#
# `pkcs11:token=LABEL;object=portvault-{region}?module-path=/LIBRARY.so&pin-source=file:/PIN`:
# which token, how its objects' labels begin, which library speaks to it, and where its PIN stands.

OBJECT = "portvault-{region}"
#: What of a token's own description may be asked for.
WHICH = ("token", "serial", "manufacturer", "model")
_QUERY = ("module-path", "pin-source")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address; it holds no secret."""

    module_path: Path
    #: Attributes of the token and the values they must have.
    which: tuple[tuple[str, str], ...]
    object: str
    pin_file: Path | None

    def __str__(self) -> str:
        return ";".join(f"{name}={value}" for name, value in self.which)

    def label(self, region: str) -> str:
        """Return what the labels of a region's objects begin with."""
        return self.object.replace("{region}", region)


def parse_address(place: str) -> Address:
    """Read what stands after `pkcs11:`."""
    path, _, query = place.partition("?")
    asked = _attributes(path, ";", (*WHICH, "object"))
    options = _attributes(query, "&", _QUERY)
    which = tuple((name, asked[name]) for name in WHICH if name in asked)
    if not which:
        raise CustodianConfigurationError(
            "say which token: pkcs11:token=LABEL?module-path=/LIBRARY.so"
        )
    module = options.get("module-path", "")
    if not module.startswith("/"):
        raise CustodianConfigurationError(
            "add ?module-path=/LIBRARY.so, the token's PKCS#11 library (SoftHSM's is "
            "/usr/lib/softhsm/libsofthsm2.so)"
        )
    label = asked.get("object", OBJECT)
    if "{region}" not in label:
        raise CustodianConfigurationError(
            f"object must hold {{region}}, so that no two regions share a label: object={OBJECT}"
        )
    return Address(Path(module), which, label, _pin_file(options.get("pin-source")))


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in filter(None, text.split(separator)):
        name, _, value = item.partition("=")
        if name == "pin-value":
            raise CustodianConfigurationError(
                "a PIN must not stand in an address: write it into a file that only you can read "
                "and say pin-source=file:/PATH instead of pin-value"
            )
        if name not in known:
            raise CustodianConfigurationError(
                f"a pkcs11: custodian knows no attribute {name!r} there; known are "
                f"{', '.join(known)}"
            )
        if name in found:
            raise CustodianConfigurationError(f"{name} stands twice in the custodian's address")
        try:
            found[name] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            found[name] = ""
        if not found[name] or "\0" in found[name]:
            raise CustodianConfigurationError(f"{name} has no value in the custodian's address")
    return found


def _pin_file(source: str | None) -> Path | None:
    if source is None:
        return None
    path = source.removeprefix("file:").removeprefix("//")
    if not source.startswith("file:") or not path.startswith("/"):
        raise CustodianConfigurationError(
            "pin-source must be a file, pin-source=file:/PATH; commands are not run"
        )
    return Path(path)


# ---- Pkcs11 token. ------------------------------------------------------------------------------

T = TypeVar("T")
FINAL_TRY, LOCKED = 0x20000, 0x40000

_WRONG_PIN = (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange)

_libraries: dict[Path, "Library"] = {}
_registering = threading.Lock()
#: Tokens that refused a PIN. Three wrong ones lock many a token for good, so none is tried twice.
_refused: set[tuple[Path, bytes]] = set()


class TokenLostError(Exception):
    """What the session shows cannot be the token: open it again and look once more."""


class Library:
    """A PKCS#11 library and the only thread that calls it; loaded while someone uses it."""

    def __init__(self, path: Path) -> None:
        self.path, self.users = path, 0
        self.calls = CallThread(f"the token's library {path}")
        self.tokens: dict[tuple[Any, ...], Token] = {}
        self._loaded: Any = None

    def load(self) -> Any:
        """Return the initialised library."""
        if self._loaded is None:
            if not self.path.is_file():
                raise CustodianConfigurationError(
                    f"module-path {self.path} is not there: install the token's PKCS#11 library "
                    "(for SoftHSM: apt-get install softhsm2), or mend the path"
                )
            try:
                self._loaded = pkcs11.lib(str(self.path))
            except p11.PKCS11Error as error:
                if "loading" in str(error):
                    raise CustodianConfigurationError(
                        f"module-path {self.path} is no PKCS#11 library that can be loaded here"
                    ) from None
                raise CustodianUnavailableError(
                    f"{self.path} does not start ({_name(error)}): see that its configuration is "
                    "right and its files can be read (for SoftHSM: SOFTHSM2_CONF and the tokens' "
                    "directory)"
                ) from None
        return self._loaded

    def unload(self) -> None:
        """Forget all sessions, so that tokens are looked for anew."""
        for token in self.tokens.values():
            token.session = None
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            with contextlib.suppress(p11.PKCS11Error):
                loaded.finalize()

    def unload_unused(self) -> None:
        """Unload, unless somebody came meanwhile."""
        if not self.users:
            self.unload()


class Token:
    """One token; every method but `run` is for the library's thread."""

    def __init__(self, library: Library, address: Address) -> None:
        self._library, self._address = library, address
        self.session: Any = None
        self.description = ""
        self._pin: str | None = None
        if address.pin_file is None:
            self._pin = _ask(address)

    def __repr__(self) -> str:
        return f"Token({self._address})"

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Call `work` with a session, once more with a new one when the first was lost."""
        return await self._library.calls.run(self._attempt, work, *args)

    async def forget(self) -> None:
        """Drop the session, so that the next call looks for the token anew."""
        await self._library.calls.run(self._library.unload)

    def _attempt(self, work: Callable[..., T], *args: object) -> T:
        failure: Exception
        for _ in range(2):
            try:
                return work(self._open(), *args)
            except (p11.PKCS11Error, TokenLostError) as error:
                failure = error
                self._library.unload()
        raise CustodianUnavailableError(
            str(failure)
            if isinstance(failure, TokenLostError)
            else f"the token {self._address} does not work ({_name(failure)}): see that it is "
            "there and sound"
        ) from None

    def _open(self) -> Any:
        if self.session is None:
            token = self._find()
            self.description = f"{token.manufacturer_id} {token.model}".strip()
            self.session = self._log_in(token)
        return self.session

    def _find(self) -> Any:
        found = []
        for slot in self._library.load().get_slots(token_present=True):
            try:
                token = slot.get_token()
            except (p11.TokenNotPresent, p11.TokenNotRecognised, p11.DeviceRemoved):
                continue
            if all(_attribute(token, name) == value for name, value in self._address.which):
                found.append(token)
        if not found:
            # Some libraries look for tokens only when they are loaded.
            self._library.unload()
            raise CustodianUnavailableError(
                f"there is no token {self._address} behind {self._library.path}: insert it, or "
                "make it with the vendor's tool (for SoftHSM: softhsm2-util --init-token)"
            )
        if len(found) > 1:
            raise CustodianConfigurationError(
                f"{len(found)} tokens are {self._address}: add ;serial=NUMBER to the address"
            )
        return found[0]

    def _log_in(self, token: Any) -> Any:
        name = self._library.path, token.serial
        if name in _refused:
            raise self._wrong_pin()
        if int(token.flags) & LOCKED:
            raise self._locked()
        if int(token.flags) & FINAL_TRY:
            raise CustodianConfigurationError(
                f"one wrong PIN more locks the token {self._address}: log in once with the "
                "vendor's tool and the right PIN, see that pin-source holds the same, and start "
                "again"
            )
        pin = self._pin
        if self._address.pin_file is not None:
            pin = read_secret(self._address.pin_file, "PIN")
        try:
            return token.open(rw=True, user_pin=pin)
        except _WRONG_PIN:
            _refused.add(name)
            raise self._wrong_pin() from None
        except p11.PinLocked:
            raise self._locked() from None
        except (p11.UserPinNotInitialized, p11.PinExpired):
            raise CustodianConfigurationError(
                f"the token {self._address} has no valid user PIN: set one with the vendor's tool"
            ) from None
        except p11.UserAlreadyLoggedIn:
            # By another address of the same token: a login holds for the whole process.
            return token.open(rw=True)

    def _wrong_pin(self) -> CustodianConfigurationError:
        where = self._address.pin_file or "what was typed"
        return CustodianConfigurationError(
            f"the token {self._address} refused the PIN in {where}: put the right one there and "
            "start again; it is not tried twice, since that could lock the token"
        )

    def _locked(self) -> CustodianConfigurationError:
        return CustodianConfigurationError(
            f"the PIN of the token {self._address} is locked: have its security officer set it anew"
        )


def take_token(address: Address) -> tuple[Library, Token]:
    """Return the process's token of an address, for one more user."""
    with _registering:
        library = _libraries.setdefault(address.module_path, Library(address.module_path))
        name = address.which, address.pin_file
        if name not in library.tokens:
            library.tokens[name] = Token(library, address)
        library.users += 1
        return library, library.tokens[name]


async def leave_token(library: Library) -> None:
    """Have one user less; after the last one the library is let go."""
    with _registering:
        library.users -= 1
        if library.users:
            return
        # A PIN that was typed goes with them.
        library.tokens.clear()
    # A library that hangs is left as it is.
    with contextlib.suppress(CustodianUnavailableError):
        await library.calls.run(library.unload_unused)


def _ask(address: Address) -> str:
    elsewhere = "write it into a file that only you can read and add &pin-source=file:/PATH to the "
    elsewhere += "custodian's address"
    if not sys.stdin.isatty():
        raise CustodianConfigurationError(
            f"the PIN of the token {address} is not known: {elsewhere}"
        )
    pin = ""
    try:
        with contextlib.suppress(EOFError), _interruptible():
            pin = getpass.getpass(f"PIN of the token {address}: ")
    except _StoppedError as stopped:
        # Whoever hears of signals otherwise hears of this one now, and cancels.
        signal.raise_signal(stopped.number)
        raise asyncio.CancelledError from None
    if not pin:
        # Not even tried: the token would count it as a wrong one.
        raise CustodianConfigurationError(
            f"no PIN of the token {address} was typed: start again and type it, or {elsewhere}"
        )
    return pin


class _StoppedError(BaseException):
    """A signal ends a question."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _frame: object) -> None:
    raise _StoppedError(number)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question: the event loop that would hear of it waits for the answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, _stop)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _attribute(token: Any, name: str) -> str:
    if name == "serial":
        return str(token.serial.decode(errors="replace")).strip()
    return str(
        getattr(token, {"token": "label", "manufacturer": "manufacturer_id"}.get(name, name))
    )


def _name(error: Exception) -> str:
    return type(error).__name__
