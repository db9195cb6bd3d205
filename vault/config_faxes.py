"""The settings of faxes; `Config` has them beside its own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaxSettings:
    """Limits and times of faxes, of the sandbox that looks into them, and of mail."""

    #: The largest fax taken.
    fax_bytes_max: int = 10 * 1024 * 1024
    #: The most pages of a fax that is taken.
    fax_pages_max: int = 500
    #: A fax that is not taken into custody within so long after its first byte is dropped.
    fax_receive_seconds_max: float = 120.0
    #: The age at which a fax is shredded, whatever became of it.
    fax_custody_seconds_max: float = 24 * 3600.0
    #: A failed delivery is tried again after so long, then twice as long each time.
    fax_retry_seconds: float = 60.0
    #: A failed delivery waits no longer than this before the next try.
    fax_retry_seconds_max: float = 3600.0
    #: An attempt to deliver a fax that takes longer counts as lost.
    fax_attempt_seconds_max: float = 600.0
    #: How many faxes share a scope of the key tree at most.
    fax_scope_faxes_max: int = 1000
    #: How long faxes that come are put into the same scope of the key tree.
    fax_scope_seconds_max: float = 60.0
    #: How long the receipt of a fax stays: the group's rule for call detail records.
    fax_receipt_days_max: int = 730
    #: How many sandboxed children look into faxes and other files.
    sandbox_processes_max: int = 2
    #: How long a child that looks into a fax may take for it.
    sandbox_timeout_seconds: float = 20.0
    #: What memory a child that looks into faxes may use.
    sandbox_memory_bytes_max: int = 1024 * 1024 * 1024
    #: Where faxes to numbers of no region's country are kept, unless whoever brings one says it or
    #: has one region alone.
    fax_other_region: str = ""
    #: The next hop of faxes that go by mail, as `smtp.example:25`.
    fax_smtp: str = ""
    #: The name to sign in with at `fax_smtp`, where it asks.
    fax_smtp_user: str = ""
    #: A file that holds the password for `fax_smtp`.
    fax_smtp_password_file: str = ""
    #: The sender's address of mails that carry faxes; reports of their delivery go there.
    fax_mail_from: str = "fax@localhost"
    #: How long the next hop may take for a mail.
    fax_mail_seconds_max: float = 120.0
    #: How many mails with faxes are on their way to the next hop at once.
    fax_relays_max: int = 8
    #: Where mails that are to be faxed come in, as `127.0.0.1:2525`.
    fax_listen: str = ""
    #: The domains of the addresses to which mails are faxed.
    fax_listen_domains: tuple[str, ...] = ()
    #: Networks whose mail is taken without a token; all others sign in, over TLS.
    fax_listen_peers: tuple[str, ...] = ()
    #: The PEM file of the certificate that `fax_listen` shows for STARTTLS.
    fax_listen_certificate: str = ""
    #: The PEM file of the key of `fax_listen_certificate`, without a passphrase.
    fax_listen_key: str = ""
    #: The most numbers that one mail may be faxed to.
    fax_listen_recipients_max: int = 20
    #: The most attachments of one mail that are faxed.
    fax_listen_attachments_max: int = 10
    #: Connections at once to `fax_listen` that carry a mail.
    fax_listen_connections_max: int = 20
    #: The most faxes with one Message-ID that look alike in size and masked number, and differ.
    fax_listen_same_name_max: int = 50
