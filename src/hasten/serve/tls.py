"""TLS for the server's port: what it shows to clients, and which clients' certificates it accepts.

The ssl module of Python does the work, within TLS 1.2 and 1.3. With `client_ca` a client without a certificate of that
authority does not get past the handshake (mutual TLS); which tokens it needs beyond that is for `access` to say.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hasten.errors import UsageError
from hasten.serve.access import NOBODY, Caller

__all__ = ["HANDSHAKE_S", "peer_of", "server_context"]

# The short names of RFC 4514 section 3.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}

# Before the handshake is done a connection is nobody's: it gets as long as a header does.
HANDSHAKE_S = 10.0


def server_context(
    certificate: Path, key: Path, client_ca: Path | None = None, protocol: str = "http/1.1"
) -> ssl.SSLContext:
    """Return the context for PEM files: the server's certificate with its chain, its private key without a password,
    and the authority of clients. `protocol` is what it offers by ALPN. Raises `UsageError` naming the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    for path in (certificate, key, *([client_ca] if client_ca else [])):
        if not path.is_file():
            raise UsageError(f"{path} does not exist.", remedy="Give PEM files to --tls-cert, --tls-key, --client-ca.")
    try:
        # A key with a password would ask for it on the terminal, where nobody may be.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"{certificate} and {key} are not a certificate and its key: {error}.",
            remedy="Give PEM files that belong together, the key without a password.",
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise UsageError(f"{client_ca} holds no certificate.", remedy="Give a PEM file to --client-ca.") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def peer_of(transport: Any) -> Caller:
    """Return who is at the other end of a connection of asyncio: a tenant by the certificate's subject, as RFC 4514
    writes it (`CN=client,O=Example`), or by its alternative names where the subject is empty (`URI:spiffe://...`).
    """
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:
        return NOBODY
    parts = [
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in several)
        for several in reversed(certificate.get("subject", ()))
    ]
    name = ",".join(parts) or _alternatives(certificate.get("subjectAltName", ()))
    return Caller(tenant=name, client=name)


def _alternatives(names: Iterable[tuple[str, Any]]) -> str:
    return ",".join(f"{kind}:{_escaped(str(value))}" for kind, value in names)


def _escaped(value: str) -> str:
    """RFC 4514 section 2.4: no value is taken for a part of the next."""
    text = "".join(f"\\{char}" if char in '"+,;<>\\=' else char for char in value).replace("\0", "\\00")
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and text != "\\ " else text


def _no_password() -> str:
    raise ValueError("the key has a password")
