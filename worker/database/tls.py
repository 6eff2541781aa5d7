"""How connections to PostgreSQL are made: by TLS as the settings say, and what fails in it."""

from __future__ import annotations

import ssl
from socket import gaierror
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from worker.settings.settings import DatabaseSettings


class CannotConnect(ConnectionError):
    """No connection could be made, whatever the type of the error: that is an outage.

    Systems tell it by many types: no route to the host, several addresses of which none answers, a
    certificate that has run out. A command must not be given up for any of them.
    """


def secure(engine: AsyncEngine, settings: DatabaseSettings) -> None:
    """Have the engine's connections made as `sslmode` and the TLS files of the settings say."""

    dialect = engine.dialect
    connect = dialect.connect

    def secured(*args: Any, **options: Any) -> Any:
        try:
            return connect(*args, **options, **_tls(settings))
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError | gaierror):
                raise
            raise CannotConnect(str(error)) from error

    dialect.connect = secured  # type: ignore[method-assign]


def _tls(settings: DatabaseSettings) -> dict[str, str | ssl.SSLContext]:
    """The driver's argument, made anew for each connection: a file may have been renewed."""
    mode, files = settings.tls_mode, settings.tls_files
    match mode:
        case None:
            return {}
        case "verify-full":
            return {"ssl": files.context()}
        case "verify-ca":
            return {"ssl": files.context(check_name=False)}
        case "require":  # which verifies, as with libpq, where an authority is named
            return {"ssl": files.context(verify=files.ca is not None, check_name=False)}
        case _:
            return {"ssl": mode}
