"""The settings of faxes; `Config` has them beside its own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaxSettings:
    """Limits and times of faxes, of the sandbox that looks into them, and of mail."""

    #: The largest fax taken, and the most pages.
    fax_bytes_max: int = 10 * 1024 * 1024
    fax_pages_max: int = 500
    #: A fax that is not taken within so long after its first byte is dropped.
    fax_receive_seconds_max: float = 120.0
    #: So long after it came a fax is shredded, whatever became of it.
    fax_custody_seconds_max: float = 24 * 3600.0
    #: A failed delivery is tried again after so long, then twice as long each time, up to this.
    fax_retry_seconds: float = 60.0
    fax_retry_seconds_max: float = 3600.0
    #: An attempt that has not ended by then is taken as lost.
    fax_attempt_seconds_max: float = 600.0
    #: How many faxes share a scope of the key tree, and for how long.
    fax_scope_faxes_max: int = 1000
    fax_scope_seconds_max: float = 60.0
    #: How long the receipt of a fax stays: the group's rule for call detail records.
    fax_receipt_days_max: int = 730
    #: Children that look into faxes, and what each may use.
    sandbox_processes_max: int = 2
    sandbox_timeout_seconds: float = 20.0
    sandbox_memory_bytes_max: int = 1024 * 1024 * 1024
    #: The next hop of faxes that go by mail, as `smtp.example:25`, and how to sign in there.
    fax_smtp: str = ""
    fax_smtp_user: str = ""
    fax_smtp_password_file: str = ""
    #: Who such mail is from; reports of its delivery go there.
    fax_mail_from: str = "fax@localhost"
    #: How long the next hop may take for a mail, and how many are on their way at once.
    fax_mail_seconds_max: float = 120.0
    fax_relays_max: int = 8
    #: Where mails that are to be faxed come in, as `127.0.0.1:2525`, and to which domains.
    fax_listen: str = ""
    fax_listen_domains: tuple[str, ...] = ()
    #: Networks whose mail is taken without a token; all others sign in, over TLS.
    fax_listen_peers: tuple[str, ...] = ()
    fax_listen_certificate: str = ""
    fax_listen_key: str = ""
    fax_listen_recipients_max: int = 20
    fax_listen_attachments_max: int = 10
    fax_listen_connections_max: int = 20
    #: Faxes with one Message-ID that look alike in size and masked number, and are not the same.
    fax_listen_same_name_max: int = 50
