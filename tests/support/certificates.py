"""An authority of the tests, and what it signs: files for servers and for the worker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from dev.servers import accounts
from dev.servers.private import PrivateServer


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs; its files lie in a directory of the tests."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._directory = directory
        self.file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def pair(self, name: str, *identities: str, expired: bool = False) -> Pair:
        """A pair for these host names, `name` being its common name and that of its files."""
        issued = self._authority.issue_cert(
            *(identities or (name,)),
            common_name=name,
            not_after=datetime(2020, 1, 1, tzinfo=UTC) if expired else None,
        )
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        issued.private_key_pem.write_to_path(str(pair.key))
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(str(pair.certificate), append=number > 0)
        return pair


def give(server: PrivateServer, *files: Path) -> list[Path]:
    """Copies of the files, in the server's own directory and for its account alone."""
    accounts.own(server.state, server.account)
    copies = []
    for file in files:
        copy = server.state / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o600)
        if server.account is not None:
            os.chown(copy, server.account.uid, server.account.gid)
        copies.append(copy)
    return copies
