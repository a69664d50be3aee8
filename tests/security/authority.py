"""Certificates for one run of the tests: an authority, and what it signs, good and bad."""

from __future__ import annotations

import datetime
import ssl
import warnings
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Authority:
    """An authority that keeps its files in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA(organization_name=name)
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def certificate(self, *names: str, expired: bool = False, early: bool = False) -> tuple[str, str]:
        """Paths of a certificate for these names and of its key."""
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        options: dict[str, datetime.datetime] = {}
        if expired:
            options = {"not_before": now - 2 * day, "not_after": now - day}
        elif early:
            options = {"not_before": now + day, "not_after": now + 2 * day}
        issued = self._ca.issue_cert(*names, **options)
        stem = f"{names[0]}{'-expired' if expired else ''}{'-early' if early else ''}".replace("*", "any")
        cert, key = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return str(cert), str(key)

    def locked(self, key: str, password: str) -> str:
        """Path of a copy of the key that `password` opens."""
        plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
        path = Path(key).with_suffix(".locked.key")
        path.write_bytes(
            plain.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()),
            )
        )
        return str(path)

    def joined(self, cert: str, key: str) -> str:
        """Path of one file with both."""
        path = Path(cert).with_suffix(".both.pem")
        path.write_text(Path(cert).read_text() + Path(key).read_text())
        return str(path)

    def lenient_context(self) -> ssl.SSLContext:
        """A client's context that also speaks TLS 1.1: shows what a test's server can do."""
        context = ssl.create_default_context(cafile=self.file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        return context
