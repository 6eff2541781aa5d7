"""What the addresses of the two servers must look like.

A fault is told without quoting the address: a password may stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Set
from itertools import zip_longest
from urllib.parse import parse_qs, parse_qsl, urlsplit

TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""As libpq has them. Only the last two verify, and only the last three insist on encryption."""

_BROKER = "amqp://user:password@host:5672/"
_DATABASE = (
    "postgresql+asyncpg://user:password@host:5432/name, or with several hosts "
    "postgresql+asyncpg://user:password@/name?host=a:5432&host=b:5432"
)
_TLS_OF_AIORMQ = {"cafile", "capath", "cadata", "keyfile", "certfile", "no_verify_ssl"}
_TLS_OF_ASYNCPG = {"sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword"}
_WRITABLE = ("read-write", "primary")


def split(urls: str) -> list[str]:
    """The addresses of a list that commas separate."""
    # At those before a scheme: a password may have others.
    return re.split(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)", urls.strip())


def check_broker(urls: str) -> None:
    """Raise `ValueError` unless each of RabbitMQ's addresses can be one."""
    for number, url in enumerate(each := split(urls), start=1):
        if not _is_url(url, {"amqp", "amqps"}):
            which = f"address {number} of {len(each)} " if len(each) > 1 else ""
            raise ValueError(f"{which}must look like {_BROKER}")
        _refuse_in_query(url, _TLS_OF_AIORMQ)


def check_database(url: str) -> None:
    """Raise `ValueError` unless PostgreSQL's address, with one host or several, can be one."""
    several = _hosts_in_query(url)
    # SQLAlchemy has several hosts in the query and none in front of it, each with its port.
    if not _is_url(url, {"postgresql+asyncpg"}, has_host=not several):
        raise ValueError(f"must look like {_DATABASE}")
    for number, host in enumerate(several, start=1):
        if not re.fullmatch(r"[^:/@?#\s]+:\d{1,5}", host):
            raise ValueError(f"host {number} of {len(several)} must look like host:5432")
    _refuse_in_query(url, _TLS_OF_ASYNCPG)
    if tls_mode(url) not in (None, *TLS_MODES):
        raise ValueError(f"sslmode must be one of: {', '.join(TLS_MODES)}")
    if _query(url).get("target_session_attrs", _WRITABLE[0]) not in _WRITABLE:
        raise ValueError(
            f"target_session_attrs must be {' or '.join(_WRITABLE)}: the worker writes"
        )


def tls_mode(url: str) -> str | None:
    """The URL's `sslmode`, which SQLAlchemy calls `ssl`."""
    query = _query(url)
    return query.get("sslmode", query.get("ssl"))


def _is_url(url: str, schemes: Set[str], *, has_host: bool = True) -> bool:
    try:
        parts = urlsplit(url)
        # A comma belongs to another address, which lacks its scheme; in a name it is written %2C.
        plain = "," not in parts.netloc.rpartition("@")[2] + parts.path
        rightly = bool(parts.hostname) is has_host and (parts.port or 1) > 0
    except ValueError:
        return False
    return parts.scheme in schemes and rightly and plain


def _hosts_in_query(url: str) -> list[str]:
    """`host:port` of each, from `host=a:1&host=b:2` or from `host=a,b&port=1,2`."""
    try:
        query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        return []
    hosts, ports = query.get("host", []), query.get("port")
    if not hosts or not ports:
        return hosts
    pairs = zip_longest(hosts[0].split(","), ports[0].split(","), fillvalue="")
    return [":".join(pair) for pair in pairs]


def _refuse_in_query(url: str, names: Set[str]) -> None:
    """Options of the libraries below that settings of ours, which are checked, stand for."""
    for name in names & _query(url).keys():
        raise ValueError(
            f"{name!r} must not stand in it: name files by …__TLS_CA_FILE, "
            "…__TLS_CERTIFICATE_FILE and …__TLS_KEY_FILE; certificates are always verified"
        )


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
