"""Grants: what a token is made good for, checked before it is made."""

from collections.abc import Collection
from dataclasses import dataclass

from vault.domain.access import Principal, Role
from vault.domain.documents import Kind
from vault.domain.orders import check_customer
from vault.domain.people import PERSON_PATTERN
from vault.domain.regions import REGIONS
from vault.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, where it counts, and how it is narrowed; None is not narrowed."""

    role: str
    regions: frozenset[str]
    customers: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    located: str | None = None
    #: SHA-256 of the only client certificate (DER) with which the token is taken.
    certificate: bytes | None = None
    #: The id of the person who holds it, where that was said.
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a token stands for, and the certificate that it is bound to."""

    principal: Principal
    certificate: bytes | None


def check_grant(grant: Grant, served: Collection[str]) -> Grant:
    """Return the grant, or raise `InvalidRequestError` that says what is wrong with it."""
    if grant.role not in list(Role):
        raise InvalidRequestError(f"role must be one of {', '.join(Role)}")
    if not grant.regions or not grant.regions <= set(served):
        raise InvalidRequestError(f"regions must be some of {', '.join(served)}")
    if grant.located is not None and grant.located not in REGIONS:
        raise InvalidRequestError(f"located must be one of {', '.join(REGIONS)}")
    narrowed = grant.customers is not None or grant.kinds is not None
    if narrowed and grant.role != Role.PORTING:
        raise InvalidRequestError(
            "only a token of the porting role is narrowed by customer or kind"
        )
    if grant.customers is not None:
        if not grant.customers:
            raise InvalidRequestError("name at least one customer")
        for customer in sorted(grant.customers):
            check_customer(customer)
    if grant.kinds is not None and (not grant.kinds or not grant.kinds <= set(Kind)):
        raise InvalidRequestError(f"kinds must be some of {', '.join(Kind)}")
    if grant.certificate is not None and len(grant.certificate) != 32:
        raise InvalidRequestError("certificate must be the SHA-256 of a certificate")
    if grant.person is not None and not PERSON_PATTERN.fullmatch(grant.person):
        raise InvalidRequestError("person must be a person's id, as the console shows it")
    return grant
