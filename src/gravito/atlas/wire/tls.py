"""TLS on a wire: the context from the settings, and every way a TLS handshake fails in words that say what to do."""

from __future__ import annotations

import os
import ssl
from typing import NoReturn

from gravito import errors
from gravito.atlas.config import TLS

# Of timeouts.connect: it must end before that does, or nobody could tell which one stalled.
HANDSHAKE_SHARE = 0.9

# OpenSSL's X509_V_ERR_* codes, and what to do about each
_NOT_YET_VALID, _EXPIRED = 9, 10
_HOSTNAME, _ADDRESS = 62, 64
_UNTRUSTED = frozenset({2, 18, 19, 20, 21})  # no issuer found, or one that signed itself

# What OpenSSL calls a first record that is none: the peer answered something else than TLS.
_NOT_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
)
_OLD = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"})
_WANTS_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"})
_BAD_CERTIFICATE = (  # parts of the alerts by which a server refuses the client's certificate
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "UNSUPPORTED_CERTIFICATE",
)


def context_of(tls: TLS, name: str) -> ssl.SSLContext:
    """The TLS context of connection `name`: TLS 1.2 at least, chain and host name checked unless switched off.

    Raises ConfigurationError, which names the setting: a file that is not there or is none of its kind, a key
    that does not belong to the certificate, a key whose password is missing or wrong.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:  # ssl.SSLError is one
        _refuse(name, "tls.ca_file", tls.ca_file, "a PEM file with the certificates to trust", error)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify or not tls.check_hostname:
        context.check_hostname = False
    if not tls.verify:
        context.verify_mode = ssl.CERT_NONE
    if tls.cert_file is not None:
        _load_own(context, tls, tls.cert_file, name)
    return context


def _load_own(context: ssl.SSLContext, tls: TLS, cert_file: str, name: str) -> None:
    asked = False

    def password() -> str:  # without one OpenSSL would ask at the terminal, and wait
        nonlocal asked
        asked = True
        return tls.key_password or ""

    key = "tls.key_file" if tls.key_file is not None else "tls.cert_file"
    try:
        context.load_cert_chain(cert_file, tls.key_file, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            _refuse(name, key, tls.key_file, f"the key that belongs to the certificate in {cert_file}", error)
        if asked:
            what = "is wrong" if tls.key_password else "is missing"
            message = f"connection '{name}': tls.key_password {what}; allowed: what opens the key in {tls.key_file or cert_file}"
            raise errors.ConfigurationError(
                message, field="tls.key_password", allowed="the key's password"
            ) from None
        _refuse(name, "tls.cert_file", cert_file, "PEM files with a certificate and its key", error)
    except OSError as error:  # which does not say the file
        missing = tls.key_file if tls.key_file is not None and _readable(cert_file) else cert_file
        field = key if missing == tls.key_file else "tls.cert_file"
        _refuse(name, field, missing, "PEM files with a certificate and its key", error)


def _readable(path: str) -> bool:
    return os.access(path, os.R_OK)


def _refuse(name: str, field: str, value: str | None, allowed: str, error: OSError) -> NoReturn:
    why = error.strerror if not isinstance(error, ssl.SSLError) else error.reason
    raise errors.ConfigurationError(
        f"connection '{name}': {field} is {value!r}, which cannot be used ({why or error}); allowed: {allowed}",
        field=field,
        value=value,
        allowed=allowed,
    ) from error


def refusal(error: ssl.SSLError, where: str) -> errors.TLSError:
    """The error for a TLS handshake that failed; `where` names the connection and the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.TLSError(f"{where}: {_about_certificate(error)}")
    reason = error.reason or str(error)
    if reason in _NOT_TLS:
        advice = (
            "the peer does not speak TLS. Use redis:// for a plain port, or name the port that speaks TLS."
        )
    elif reason in _OLD:
        advice = "the server has no version of TLS that is allowed. Let it speak TLS 1.2 or 1.3."
    elif reason in _WANTS_CERTIFICATE:
        advice = (
            "the server ended the handshake. It may ask for a client's certificate: set tls.cert_file and "
            "tls.key_file to one that it trusts."
        )
    elif any(word in reason for word in _BAD_CERTIFICATE):
        advice = (
            "the server refused this client's certificate. Set tls.cert_file and tls.key_file to one that it "
            "trusts and that has not expired."
        )
    else:
        advice = "the TLS handshake failed. Check that the port speaks TLS 1.2 or 1.3, and the tls settings."
    return errors.TLSError(f"{where}: {advice} [{reason}]")


def _about_certificate(error: ssl.SSLCertVerificationError) -> str:
    code, said = error.verify_code, str(error.verify_message).rstrip(".")
    if code == _EXPIRED:
        return f"the server's certificate has expired ({said}). Renew it on the server, and check this clock."
    if code == _NOT_YET_VALID:
        return f"the server's certificate is not valid yet ({said}). Check the clocks of both machines."
    if code in (_HOSTNAME, _ADDRESS):
        return (
            f"the server's certificate is for another name ({said}). Connect by a name that it holds, or give "
            "the server a certificate for this one."
        )
    if code in _UNTRUSTED:
        return (
            f"the server's certificate is not signed by anybody trusted ({said}). Name the authority's "
            "certificate in tls.ca_file."
        )
    return f"the server's certificate was refused ({said}). Check it, and tls.ca_file."


def stalled(where: str, seconds: float) -> errors.TLSTimeoutError:
    """The error for a peer that took the connection and then said nothing that TLS knows."""
    return errors.TLSTimeoutError(
        f"{where} took the connection but did not finish the TLS handshake within {seconds:.3g} s. Does the port speak "
        "TLS? Use redis:// for a plain one. If it does, the server hangs or is overloaded; timeouts.connect "
        "sets how long to wait."
    )


def cut_off(where: str) -> errors.TLSError:
    """The error for a peer that closed the connection between the TLS handshake and its first reply.

    With TLS 1.3 a server looks at the client's certificate when the client is done already, and what it says of
    it can be lost when the client's first words meet the closed connection. A proxy whose server is down closes
    in the same place, so this is tried again.
    """
    error = errors.TLSError(
        f"{where} closed the connection right after the TLS handshake. If it asks for a client's certificate, set "
        "tls.cert_file and tls.key_file to one that it trusts; if it is a proxy, is there a server behind it?"
    )
    error.final = False
    return error
