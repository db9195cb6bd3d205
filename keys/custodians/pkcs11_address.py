"""
The address of a token (RFC 7512).

`pkcs11:token=LABEL;object=portvault-{region}?module-path=/LIBRARY.so&pin-source=file:/PIN`: which
token, how its objects' labels begin, which library speaks to it, and where its PIN stands.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from keys.errors import CustodianConfigurationError

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
