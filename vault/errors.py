"""
What can go wrong in the vault. The docstring of an error is its default message.

No HTTP status stands here: `web/problems.py` is the one table that maps these to problems.
"""


class VaultError(Exception):
    """The vault cannot do this."""

    #: Why, as a code for the access record, where the class alone does not say it.
    ground: str | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class ConfigurationError(VaultError):
    """The configuration is wrong."""


class InvalidRequestError(VaultError):
    """The request is not well formed."""


class UnreadableError(InvalidRequestError):
    """The body cannot be read as what it should be."""


class UnauthenticatedError(VaultError):
    """A valid token is needed."""


class ForbiddenError(VaultError):
    """This role may not do this."""


class NotFoundError(VaultError):
    """There is no such thing, or not for you."""


class ConflictError(VaultError):
    """The thing is not in a state that allows this."""


class KeysBusyError(ConflictError):
    """The region's keys are being sealed; try again."""


class ShreddedError(VaultError):
    """The document was shredded."""


class LeftBehindError(VaultError):
    """A restore left it behind: nobody shredded it, and its key is no more."""


class TooLargeError(VaultError):
    """The document is over the size limit."""


class UnsupportedTypeError(VaultError):
    """This type of file is not accepted here."""


class ContentRefusedError(VaultError):
    """The content was refused."""


class DigestMismatchError(VaultError):
    """The content does not match its Content-Digest."""


class TruncatedUploadError(VaultError):
    """The upload ended before its declared length."""


class LockedError(VaultError):
    """A hold or a restriction forbids this."""


class LimitError(VaultError):
    """This is more than one principal may read, or be refused, in so short a time."""

    #: When it is worth trying again.
    retry_after_seconds: int = 1


class FloorError(ConflictError):
    """The law, or the practice of the industry, has it kept."""

    ground = "legal-floor"


class HeldError(LockedError):
    """A hold keeps it."""

    ground = "hold"


class RestrictedError(LockedError):
    """It is restricted (GDPR art. 18): kept, but not read."""

    ground = "restricted"


class ClockError(VaultError):
    """This machine's clock cannot be trusted, so nothing is shredded by it."""


class DoubtError(VaultError):
    """A restore could not tell all that keeps documents, so nothing goes by its time."""


class BulkExpiryError(VaultError):
    """More is due at once than goes without two people's agreement."""


class ResidencyError(VaultError):
    """The content may not leave its region on any recorded basis."""


class UnavailableError(VaultError):
    """A part the vault cannot work without is not available; try again."""


class DatabaseUnavailableError(UnavailableError):
    """The database is not available."""


class IdentityProviderUnavailableError(UnavailableError):
    """The identity provider does not answer as one; try again, or use break-glass."""


class RecordsUnavailableError(UnavailableError):
    """Access records cannot be written, so nothing is handed out."""


class StreamAgeError(UnavailableError):
    """The stream was open for longer than `stream_seconds_max`; ask for it again."""


class ObjectStoreUnavailableError(UnavailableError):
    """The object store is not available."""


class MailDeferredError(VaultError):
    """The next hop did not take the mail; it is tried again."""


class MailRefusedError(VaultError):
    """The next hop refused the mail for good."""


class ObjectMissingError(VaultError):
    """The object is not in the store."""
