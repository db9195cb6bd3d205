"""
A database's address as people may see it.

What is known to be no secret is shown, all else is not: passwords stand in an address in many
forms (before the host, among the parameters, with any character escaped or not), and new parameters
come with each version. An address of which it is not certain what is what is not shown at all.
"""

import re
from urllib.parse import unquote_plus

#: Parameters of libpq that say where a connection goes and how, and never a secret.
SHOWN = frozenset(
    {
        *("host", "hostaddr", "port", "dbname", "database", "user", "application_name"),
        *("fallback_application_name", "connect_timeout", "sslmode", "sslrootcert", "sslcert"),
        *("sslkey", "sslcrl", "sslnegotiation", "ssl_min_protocol_version", "channel_binding"),
        *("ssl_max_protocol_version", "gssencmode", "krbsrvname", "target_session_attrs"),
        *("client_encoding", "keepalives", "tcp_user_timeout", "load_balance_hosts", "passfile"),
        *("service", "require_auth", "requirepeer", "replication"),
    }
)
HIDDEN = "***"

_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^/?#@:,\[\]]*)(?::[0-9]+)?"
_ADDRESS = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)"
    r"(?:(?P<user>[^:/?#@\[\]]*)(?P<password>:[^/?#@\[\]]*)?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?P<name>/[^/?#@]*)?"
    r"(?:\?(?P<query>[^#?]*))?"
)
_WORD = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^'\\\s]|\\.)*)(?=\s|$)")


def shown_address(address: str) -> str:
    """Return an address, as a URI or as `name=value` words, with nothing in it that is a secret."""
    if address in {"", "embedded:"}:
        return address
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return _shown_words(address)
    query = found["query"] or ""
    if "@" in query and found["user"] is None:
        # It may be the rest of a password that was not escaped.
        return f"{found['scheme']}{HIDDEN}"
    login = ""
    if found["user"] is not None:
        login = f"{found['user']}{':' + HIDDEN if found['password'] else ''}@"
    shown = f"{found['scheme']}{login}{found['hosts']}{found['name'] or ''}"
    pairs = [_shown_pair(pair) for pair in query.split("&") if pair]
    return f"{shown}?{'&'.join(pairs)}" if pairs else shown


def _shown_pair(pair: str) -> str:
    name, _, value = pair.partition("=")
    known = unquote_plus(name).strip()
    return f"{known}={value}" if known in SHOWN else HIDDEN


def _shown_words(address: str) -> str:
    shown, position = [], 0
    while position < len(address.rstrip()):
        word = _WORD.match(address, position)
        if word is None:
            return HIDDEN
        shown.append(f"{word[1]}={word[2]}" if word[1] in SHOWN else HIDDEN)
        position = word.end()
    return " ".join(shown)
