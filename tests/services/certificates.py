"""Certificates for services of the tests, made by an authority of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.services.ports import free_port


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path
    #: Both in one file, as MongoDB takes them.
    both: Path


class Authority:
    """A private certificate authority whose files are below `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def server(self, *names: str) -> Certificate:
        """A server's certificate for these names and addresses; this machine's when there are none."""
        return self._write("server", self._authority.issue_cert(*(names or ("localhost", "127.0.0.1"))))

    def client(self) -> Certificate:
        """A client's certificate."""
        return self._write("client", self._authority.issue_cert("client.example", common_name="client"))

    def _write(self, name: str, made: trustme.LeafCert) -> Certificate:
        paths = [self._folder / f"{name}{suffix}" for suffix in (".crt", ".key", ".pem")]
        made.cert_chain_pems[0].write_to_path(paths[0])
        made.private_key_pem.write_to_path(paths[1])
        made.private_key_and_cert_chain_pem.write_to_path(paths[2])
        for path in paths[1:]:
            path.chmod(0o600)
        return Certificate(*paths)


def redis_over_tls(
    server: Certificate, authority: Authority, *, asks_clients: bool = False
) -> dict[str, str]:
    """What to configure a Redis with; `tls-port` is where it speaks TLS."""
    return {
        "tls-port": str(free_port()),
        "tls-cert-file": str(server.certificate),
        "tls-key-file": str(server.key),
        "tls-ca-cert-file": str(authority.file),
        "tls-auth-clients": "yes" if asks_clients else "no",
    }


def mongod_over_tls(server: Certificate, authority: Authority, *, asks_clients: bool = False) -> list[str]:
    """Options of a MongoDB that speaks TLS with who asks for it, and takes plain connections of the tests."""
    options = ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(server.both)]
    options += ["--tlsCAFile", str(authority.file)]
    return options if asks_clients else [*options, "--tlsAllowConnectionsWithoutCertificates"]
