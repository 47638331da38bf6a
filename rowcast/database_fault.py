"""What is wrong where a database cannot be reached, in words that name the setting to mend."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from rowcast.tls import TlsFiles, begin_postgres, why_not_trusted

_SERVER = re.compile(r'server at "([^"]+)"(?: \([^)]*\))?, port (\d+) failed: (?:SSL error|.*certificate)')
_DEFAULT_AUTHORITY = Path("~/.postgresql/root.crt")
_LIMITS = "docs/reference/rights.md says how many connections each part opens"
# What the server or libpq says, what mends it, and whether it lasts until somebody does.
_REASONS = (
    ("password authentication failed", "correct its user or password", True),
    ("no password supplied", "a password, a reference to one, or a password in its url", True),
    ("no encryption", "sslmode=verify-full in its url, or a line in the server's pg_hba.conf", True),
    ("no pg_hba.conf entry", "a line for user, database and host in the server's pg_hba.conf", True),
    ("valid client certificate", "sslcert and sslkey in its url: the client's own certificate and key", True),
    (
        "certificate authentication failed",
        "a client certificate whose common name is the user, or a line in pg_ident",
        True,
    ),
    ("root certificate file", "sslrootcert in its url: a PEM file with whom to trust", True),
    ("does not match host name", "a host in its url that the server's certificate names", True),
    ("certificate verify failed", "sslrootcert in its url: a PEM file with whom to trust", True),
    ("does not support SSL", "TLS on the server, or another sslmode in its url", True),
    ("alert", "sslcert in its url: a client certificate that is valid, from whom the server trusts", True),
    ("private key file", "sslkey in its url: the PEM key of sslcert, readable by its owner alone", True),
    ("certificate file", "sslcert in its url: the client's own certificate in PEM form", True),
    ("too many connections for role", f"a higher CONNECTION LIMIT of the role; {_LIMITS}", False),
    ("too many connections for database", f"a higher CONNECTION LIMIT of the database; {_LIMITS}", False),
    ("too many clients", f"a higher max_connections of the server; {_LIMITS}", False),
    ("connection slots are reserved", f"a higher max_connections of the server; {_LIMITS}", False),
    ("does not exist", "create it, or correct its url", True),
    ("is not permitted to log in", "ALTER ROLE … LOGIN, or correct its user", True),
    ("permission denied for database", "GRANT CONNECT ON DATABASE, or correct its user", True),
    ("failed to resolve host", "correct the host in its url", False),
    ("could not translate host name", "correct the host in its url", False),
    ("read-only", "a host in its url that is the primary server", False),
    ("refused", "start it, or correct host and port in its url", False),
)
# What TLS shows when it is tried once more: libpq has one text for them all.
_ABOUT = {
    "server": "a valid certificate on the server",
    "name": "a host in its url that the certificate names",
    "authority": "sslrootcert in its url: a PEM file with whom to trust",
}


@dataclass(frozen=True, slots=True)
class DatabaseFault:
    """*message* says what is wrong, *fix* what to do, empty where it is not known; *lasting*: waiting does not help."""

    message: str
    fix: str
    lasting: bool


def database_fault(error: psycopg.Error, url: str) -> DatabaseFault:
    """Why no connection to *url* came about; may ask the server once more for its certificate."""
    message = " ".join(str(error).split())
    for text, fix, lasting in _REASONS:
        if text in message:
            reason = _certificate_fault(message, url) if text == "certificate verify failed" else None
            return reason or DatabaseFault(message, fix, lasting)
    return DatabaseFault(message, "", lasting=False)


def _certificate_fault(message: str, url: str) -> DatabaseFault | None:
    found = _SERVER.search(message)
    if found is None:
        return None
    authority = conninfo_to_dict(url).get("sslrootcert")
    if authority is None and _DEFAULT_AUTHORITY.expanduser().exists():
        authority = str(_DEFAULT_AUTHORITY.expanduser())
    files = TlsFiles(None if authority == "system" else str(authority))
    fault = why_not_trusted(found[1], int(found[2]), files, begin_postgres)
    if fault is None or fault.about not in _ABOUT:
        return None
    return DatabaseFault(fault.message, _ABOUT[fault.about], lasting=True)
