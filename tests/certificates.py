"""Certificates for tests, made with openssl: an authority, and what it issues."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_SERVER = "subjectAltName=IP:127.0.0.1,DNS:localhost"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the *chain*, its *key*, and *both* in one file."""

    chain: Path
    key: Path
    both: Path


class Authority:
    """An authority with its files in *folder*; *certificate* is what others trust."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.fail("openssl is needed to make certificates; on Debian: apt-get install openssl")
        folder.mkdir()
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            "req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=test", "-keyout", self._key, "-out", self.certificate
        )

    def issue(self, name: str, names: str = _SERVER, *, expired: bool = False) -> Certificate:
        """A certificate with the common name *name*, for the hosts in *names*."""
        stem = self._folder / name
        chain, key, request, both = (stem.with_suffix(end) for end in (".crt", ".key", ".csr", ".pem"))
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-addext", names, "-keyout", key, "-out", request)
        (self._folder / "index.txt").write_text("")
        days = ("20200101000000Z", "20200102000000Z") if expired else ("20200101000000Z", "20990101000000Z")
        _openssl(
            *("ca", "-batch", "-notext", "-config", self._configuration()),
            *("-cert", self.certificate, "-keyfile", self._key, "-startdate", days[0], "-enddate", days[1]),
            *("-in", request, "-out", chain),
        )
        both.write_text(key.read_text() + chain.read_text())
        return Certificate(chain, key, both)

    def locked(self, certificate: Certificate) -> Path:
        """The key of *certificate*, protected by the password ``open``."""
        path = certificate.key.with_suffix(".locked")
        _openssl("pkcs8", "-topk8", "-in", certificate.key, "-out", path, "-passout", "pass:open")
        return path

    def _configuration(self) -> Path:
        path = self._folder / "ca.conf"
        lines = (
            *(
                "[ca]",
                "default_ca=here",
                "[here]",
                f"database={self._folder}/index.txt",
                f"new_certs_dir={self._folder}",
            ),
            *(
                "default_md=sha256",
                "policy=any",
                "rand_serial=yes",
                "copy_extensions=copy",
                "unique_subject=no",
                "[any]",
            ),
            "commonName=supplied",
        )
        path.write_text("\n".join(lines) + "\n")
        return path


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
