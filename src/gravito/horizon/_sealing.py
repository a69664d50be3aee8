"""Encryption of payloads, with key rotation: Fernet of the package `cryptography`.

See https://cryptography.io/en/latest/fernet/
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from gravito.errors import ConfigurationError, PayloadError
from gravito.horizon._payload import Body

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

__all__ = ["Sealer", "Vault", "new_key"]

_ALLOWED = "keys as `gravito.horizon.new_key()` makes them: 32 random bytes in URL-safe base64"


class Sealer:
    """Encrypts with the first key, decrypts with any: a new key goes to the front, an old one stays until the jobs
    that it sealed are gone.

    Args:
        keys: at least one.

    Raises:
        ConfigurationError: no key, a malformed one, or the package `cryptography` is missing.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self._count = len(keys)
        self._fernet = _fernet(keys)
        # The last key, since it is the one that programs with the old keys and with the new ones have in common.
        self._mark = hashlib.blake2b(base64.urlsafe_b64decode(keys[-1]), person=b"gravito marks").digest()

    def __repr__(self) -> str:
        return f"<Sealer with {self._count} keys>"

    def seal(self, label: str, data: bytes) -> bytes:
        """Encrypt. The label (what it is, of which job) is sealed with it, so that parts cannot change places."""
        return self._fernet.encrypt(msgspec.msgpack.encode((label, data)))

    def mark(self, label: str, text: str) -> str:
        """A text that stands for this one: the same for whoever has the same last key, and without it no way back.

        It tells which texts are equal, and under another label (what it is for) not even that.
        """
        data = msgspec.msgpack.encode((label, text))
        return hashlib.blake2b(data, key=self._mark, digest_size=16).hexdigest()

    def open(self, label: str, data: bytes) -> bytes:
        """Decrypt.

        Raises:
            PayloadError: no key fits, it was tampered with, or it is another label's.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # an optional package

        try:
            found, plain = msgspec.msgpack.decode(self._fernet.decrypt(data), type=tuple[str, bytes])
        except InvalidToken:
            raise PayloadError(
                f"{label}: none of the {self._count} keys opens it, or it was altered"
            ) from None
        if found != label:
            raise PayloadError(f"{label}: what was sealed here belongs to {found}")
        return plain


class Vault:
    """Encrypts and decrypts where there are keys, and says so where there are none.

    Args:
        keys: see `Sealer`; none for a Horizon that encrypts nothing.
    """

    def __init__(self, keys: Sequence[str | bytes] = ()) -> None:
        self._sealer = Sealer(keys) if keys else None

    def __repr__(self) -> str:
        return f"<Vault of {self._sealer!r}>"

    def __bool__(self) -> bool:
        return self._sealer is not None

    def seal(self, label: str, data: bytes) -> bytes:
        """Encrypt.

        Raises:
            PayloadError: there are no keys here.
        """
        return self._keys(label).seal(label, data)

    def open(self, label: str, data: bytes) -> bytes:
        """Decrypt.

        Raises:
            PayloadError: there are no keys here, none fits, or it was altered.
        """
        return self._keys(label).open(label, data)

    def mark(self, label: str, text: str) -> str:
        """A keyed hash; see `Sealer.mark`.

        Raises:
            PayloadError: there are no keys here.
        """
        return self._keys(label).mark(label, text)

    def arguments(self, body: Body, job_id: str) -> bytes:
        """A body's encoded arguments, decrypted if need be.

        Raises:
            PayloadError: there are no keys here, none fits, or they were altered.
        """
        if body.extra is None or not body.extra.sealed:
            return bytes(body.args)
        return self.open(f"arguments of {body.name} {job_id}", msgspec.msgpack.decode(body.args, type=bytes))

    def _keys(self, label: str) -> Sealer:
        if self._sealer is None:
            raise PayloadError(f"{label}: it is encrypted, and this Horizon has no keys")
        return self._sealer


def new_key() -> str:
    """A new key for the setting `keys`. Keep it like a password.

    Raises:
        ConfigurationError: the package `cryptography` is missing.
    """
    _fernet_class()
    from cryptography.fernet import Fernet  # noqa: PLC0415  # an optional package

    return Fernet.generate_key().decode()


def _fernet(keys: Sequence[str | bytes]) -> MultiFernet:
    multi = _fernet_class()
    from cryptography.fernet import Fernet  # noqa: PLC0415  # an optional package

    if isinstance(keys, (str, bytes)) or not keys:
        raise ConfigurationError("keys: a list of at least one key is needed", field="keys", allowed=_ALLOWED)
    made = []
    for number, key in enumerate(keys):
        try:
            made.append(Fernet(key))
        except (ValueError, TypeError):
            message = f"keys[{number}] is no key; allowed: {_ALLOWED}"
            raise ConfigurationError(message, field=f"keys[{number}]", allowed=_ALLOWED) from None
    return multi(made)


def _fernet_class() -> type[MultiFernet]:
    try:
        from cryptography.fernet import MultiFernet  # noqa: PLC0415  # an optional package
    except ImportError as error:
        message = "encrypted payloads need the package cryptography: pip install 'gravito[crypto]'"
        raise ConfigurationError(message, field="keys") from error
    return MultiFernet
