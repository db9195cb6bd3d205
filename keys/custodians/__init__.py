"""
The custodians, one a file, found by the scheme of their address.

Only the one that is asked for is loaded: an HTTP client costs a command a third of its time.
"""

from collections.abc import Callable

from keys.custodian import Custodian
from keys.custodians.file import FileCustodian
from keys.errors import CustodianConfigurationError


def _pkcs11(place: str) -> Custodian:
    try:
        from keys.custodians.pkcs11 import Pkcs11Custodian
    except ModuleNotFoundError as error:
        if error.name != "pkcs11":
            raise
        raise CustodianConfigurationError(
            "a pkcs11: custodian needs a package that is not installed: run `python -m pip install "
            "python-pkcs11` with the Python that runs portvault"
        ) from None
    return Pkcs11Custodian(place)


def _transit(place: str) -> Custodian:
    from keys.custodians.transit import TransitCustodian

    return TransitCustodian(place)


SCHEMES: dict[str, Callable[[str], Custodian]] = {
    "file": FileCustodian,
    "pkcs11": _pkcs11,
    "transit": _transit,
}


def open_custodian(uri: str) -> Custodian:
    """Return the custodian of an address such as `file:/var/lib/portvault-keys`."""
    scheme, _, place = uri.partition(":")
    if scheme not in SCHEMES or not place:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise CustodianConfigurationError(f"{scheme}: is no custodian; known are {known}")
    return SCHEMES[scheme](place)
