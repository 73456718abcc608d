from __future__ import annotations

import datetime
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hasten.bundle.read import Bundle
from hasten.errors import UsageError
from hasten.serve.access import NOBODY, Caller
from hasten.serve.rate import Rate
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.tls import peer_of, server_context

trustme = pytest.importorskip("trustme", reason="makes certificates on the spot")
REFUSED = (ssl.SSLError, ConnectionError, http.client.HTTPException)


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem and key.pem of the server, ca.pem of the authority."""
    folder = tmp_path_factory.mktemp("tls")
    pair = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    (folder / "key.pem").write_bytes(pair.private_key_pem.bytes())
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    return folder


@pytest.fixture(scope="module")
def mutual(bundle: Bundle, files: Path) -> Iterator[Running]:
    context = server_context(files / "cert.pem", files / "key.pem", files / "ca.pem")
    with serve_bundle(bundle, Options(front=Front(tls=context))) as running:
        yield running


@pytest.fixture(scope="module")
def plain(bundle: Bundle, files: Path) -> Iterator[Running]:
    context = server_context(files / "cert.pem", files / "key.pem")
    with serve_bundle(bundle, Options(front=Front(tls=context))) as running:
        yield running


def client_context(authority: Any, certificate: Any = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def live(running: Running, context: ssl.SSLContext) -> int:
    return asked(running, context, "/v2/health/live")


def asked(running: Running, context: ssl.SSLContext, path: str) -> int:
    connection = http.client.HTTPSConnection(urlsplit(running.url).netloc, timeout=20, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_a_client_that_trusts_the_authority_is_served_over_tls(plain: Running, authority: Any) -> None:
    assert plain.url.startswith("https://")
    assert live(plain, client_context(authority)) == 200


def test_plain_http_on_the_tls_port_gets_nothing(plain: Running) -> None:
    place = urlsplit(plain.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as stream:
        stream.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            heard = stream.recv(1000)
        except ConnectionError:
            heard = b""
    assert b"HTTP/1.1" not in heard


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_before_1_2_is_refused(plain: Running, authority: Any) -> None:
    context = client_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(REFUSED):
        live(plain, context)


def test_with_a_client_authority_a_certificate_of_it_opens_the_door(mutual: Running, authority: Any) -> None:
    assert live(mutual, client_context(authority, authority.issue_cert("client@example.org"))) == 200


def _expired(authority: Any) -> Any:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    return authority.issue_cert("client@example.org", not_before=past, not_after=past + datetime.timedelta(days=1))


@pytest.mark.parametrize(
    "make",
    [lambda _: None, _expired, lambda _: trustme.CA().issue_cert("client@example.org")],
    ids=["none", "expired", "of another authority"],
)
def test_without_a_good_certificate_the_handshake_is_refused(mutual: Running, authority: Any, make: Any) -> None:
    with pytest.raises(REFUSED):
        live(mutual, client_context(authority, make(authority)))
    assert live(mutual, client_context(authority, authority.issue_cert("client@example.org"))) == 200


def test_certificates_of_clients_are_enough_for_an_address_that_others_reach(bundle: Bundle, files: Path) -> None:
    context = server_context(files / "cert.pem", files / "key.pem", files / "ca.pem")
    with serve_bundle(bundle, Options(front=Front(tls=context)), host="0.0.0.0") as running:
        assert running.url.startswith("https://0.0.0.0:")
    only_ours = Front(tls=server_context(files / "cert.pem", files / "key.pem"))
    with pytest.raises(UsageError, match="--client-ca"), serve_bundle(bundle, Options(front=only_ours), host="0.0.0.0"):
        pass


def test_files_that_are_missing_or_do_not_fit_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.pem"):
        server_context(files / "none.pem", files / "key.pem")
    with pytest.raises(UsageError, match=r"ca\.pem and .*key\.pem are not"):
        server_context(files / "ca.pem", files / "key.pem")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(UsageError, match="holds no certificate"):
        server_context(files / "cert.pem", files / "key.pem", tmp_path / "empty.pem")


def test_a_key_with_a_password_is_refused_instead_of_asked_for(files: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((files / "key.pem").read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError, match="without a password"):
        server_context(files / "cert.pem", locked)


class Transport:
    """A connection whose client showed a certificate."""

    def __init__(self, certificate: dict[str, Any] | None) -> None:
        self._certificate = certificate

    def get_extra_info(self, name: str) -> Any:
        assert name == "peercert"
        return self._certificate


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subject": ((("organizationName", "Acme, Inc."),), (("commonName", "one"),))}, "CN=one,O=Acme\\, Inc."),
        ({"subject": ((("commonName", "a"), ("userId", "b")),)}, "CN=a+UID=b"),
        ({"subject": ((("commonName", "a,O=b"),),)}, "CN=a\\,O\\=b"),
        ({"subject": ((("commonName", " # "),),)}, "CN=\\ #\\ "),
        ({"subject": (), "subjectAltName": (("URI", "spiffe://a/b"), ("DNS", "c"))}, "URI:spiffe://a/b,DNS:c"),
    ],
)
def test_a_client_is_called_by_the_subject_of_its_certificate(certificate: dict[str, Any], name: str) -> None:
    assert peer_of(Transport(certificate)) == Caller(tenant=name)
    assert peer_of(Transport(certificate)).client == name


def test_a_client_without_a_certificate_is_nobody() -> None:
    assert peer_of(Transport(None)) is NOBODY


def test_each_certificate_has_an_allowance_of_its_own(bundle: Bundle, files: Path, authority: Any) -> None:
    context = server_context(files / "cert.pem", files / "key.pem", files / "ca.pem")
    one, other = (
        client_context(authority, authority.issue_cert("client@example.org", common_name=name))
        for name in ("one", "other")
    )
    front = Front(tls=context, rate=Rate(requests_per_s=1e-3, burst=2))
    with serve_bundle(bundle, Options(front=front)) as running:
        found = [asked(running, who, "/v2") for who in (one, one, one, other)]
    assert found == [200, 200, 429, 200]
