"""TLS to the broker and the database: whom the worker trusts, and who it is.

Verification is on and TLS is 1.2 or newer, unless a mode of PostgreSQL's says otherwise. Files are
read again once they have changed, so that a renewed certificate needs no restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM form; without `ca` the system's authorities are trusted."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    """Where the certificate's file holds its key as well, `None`."""

    def __bool__(self) -> bool:
        return any((self.ca, self.certificate, self.key))

    def context(self, *, verify: bool = True, check_name: bool = True) -> ssl.SSLContext:
        """What a connection is made with.

        Raises `OSError` (an `ssl.SSLError` is one) where a file cannot be read or used.
        """
        files = [path for path in (self.ca, self.certificate, self.key) if path is not None]
        changed = tuple(path.stat().st_mtime_ns for path in files)
        return _context(self, changed, verify, check_name)


@lru_cache(maxsize=8)
def _context(
    files: TlsFiles, _changed: tuple[int, ...], verify: bool, check_name: bool
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = verify and check_name
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    if files.certificate is not None:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    return context


class _Encrypted(ssl.SSLError):
    """A private key that only a password opens."""


def _no_password() -> str:
    # Without this OpenSSL would ask whoever sits at the terminal.
    raise _Encrypted("the private key is encrypted; give one that is not, readable by us alone")


def check_authorities(path: Path) -> None:
    """Raise `ValueError`, with what is wrong, unless the file holds certificates."""
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError("holds no certificates in PEM form") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None


def check_identity(certificate: Path, key: Path | None) -> None:
    """Raise `ValueError`, with what is wrong, unless certificate and key belong together."""
    for path in filter(None, (certificate, key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        ssl.create_default_context().load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted as error:
        raise ValueError(str(error.args[0])) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("the key is not that of the certificate") from None
        raise ValueError(
            f"{certificate} and {key or 'the same file'} must hold a certificate and its private "
            "key in PEM form"
        ) from None


def mismatch(error: BaseException) -> str | None:
    """Why the two sides could not agree on TLS, in words; `None` where that is not what failed."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError):
            return _in_words(cause)
        if isinstance(cause, ConnectionError) and "rejected SSL upgrade" in str(cause):
            return "what answers there offers no TLS, or is no PostgreSQL"  # asyncpg's words
    return None


def was_dropped(error: BaseException) -> bool:
    """Whether the other side ended a connection that it had accepted.

    With TLS 1.3 it says so only after the handshake that it wants another certificate of ours; and
    the end of the connection may come before its words.
    """
    return any(
        isinstance(cause, ConnectionResetError | BrokenPipeError | EOFError | StopAsyncIteration)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what has caused it; one that was raised twice may stand in its own chain."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__
    return chain


def _in_words(error: ssl.SSLError) -> str | None:
    reason = str(getattr(error, "reason", None) or "").upper().replace(" ", "_")
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return "it does not speak TLS at this port"
    if "CERTIFICATE_REQUIRED" in reason or reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return "it wants a certificate of the worker's (…__TLS_CERTIFICATE_FILE)"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return "it does not trust the worker's certificate (…__TLS_CERTIFICATE_FILE)"
    if "PROTOCOL" in reason or reason == "NO_SHARED_CIPHER":
        return "it offers no version of TLS that is safe (1.2 or newer)"
    return None
