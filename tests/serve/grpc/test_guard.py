"""Who may use gRPC: the same certificates and tokens as over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hasten.bundle.read import Bundle
from hasten.errors import UsageError
from hasten.serve.access import Access, Scope
from hasten.serve.rate import Rate
from hasten.serve.server import Front, Options, serve_bundle
from hasten.serve.tls import server_context

grpc = pytest.importorskip("grpc", reason="gRPC's own library calls the server")
trustme = pytest.importorskip("trustme", reason="makes certificates on the spot")

TOKEN = "a-token-that-is-long-enough"
READY = "/inference.GRPCInferenceService/ServerReady"
METADATA = "/inference.GRPCInferenceService/ServerMetadata"
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def pair(authority: Any) -> Any:
    return authority.issue_cert("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def files(authority: Any, pair: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    key.write_bytes(pair.private_key_pem.bytes())
    ca.write_bytes(authority.cert_pem.bytes())
    return certificate, key, ca


def front(files: tuple[Path, Path, Path], mutual: bool) -> Front:
    certificate, key, ca = files
    contexts = [server_context(certificate, key, ca if mutual else None, protocol) for protocol in ("http/1.1", "h2")]
    return Front(tls=contexts[0], grpc=("127.0.0.1", 0), grpc_tls=contexts[1])


def ask(channel: Any, path: str = READY, **metadata: str) -> bytes:
    with channel:
        return channel.unary_unary(path)(b"", timeout=PATIENCE_S, metadata=tuple(metadata.items()))


def test_a_client_that_trusts_the_authority_is_served_over_tls(
    bundle: Bundle, files: tuple[Path, Path, Path], authority: Any
) -> None:
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with serve_bundle(bundle, Options(front=front(files, mutual=False))) as server:
        assert ask(grpc.secure_channel(server.grpc, credentials)) == b"\x08\x01"
        with pytest.raises(grpc.RpcError):
            ask(grpc.insecure_channel(server.grpc))


def test_a_client_needs_a_certificate_where_clients_have_some(
    bundle: Bundle, files: tuple[Path, Path, Path], authority: Any
) -> None:
    own = authority.issue_cert("client@example.org")
    chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
    known = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), own.private_key_pem.bytes(), chain)
    with serve_bundle(bundle, Options(front=front(files, mutual=True))) as server:
        assert ask(grpc.secure_channel(server.grpc, known)) == b"\x08\x01"
        with pytest.raises(grpc.RpcError):
            ask(grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials(authority.cert_pem.bytes())))


def test_each_certificate_has_an_allowance_of_its_own(
    bundle: Bundle, files: tuple[Path, Path, Path], authority: Any
) -> None:
    channels: list[Any] = []
    limited = replace(front(files, mutual=True), rate=Rate(requests_per_s=1e-3, burst=2))
    with serve_bundle(bundle, Options(front=limited)) as server:
        for name in ("one", "other"):
            own = authority.issue_cert("client@example.org", common_name=name)
            chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
            known = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), own.private_key_pem.bytes(), chain)
            channels.append(grpc.secure_channel(server.grpc, known, [("grpc.use_local_subchannel_pool", 1)]))
        one, other = (channel.unary_unary(METADATA) for channel in channels)
        assert all(b"hasten" in one(b"", timeout=PATIENCE_S) for _ in range(2))
        with pytest.raises(grpc.RpcError) as caught:
            one(b"", timeout=PATIENCE_S)
        assert b"hasten" in other(b"", timeout=PATIENCE_S)
        for channel in channels:
            channel.close()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("hasten-code", "rate_limited") in [(key, value) for key, value in caught.value.trailing_metadata()]


def test_a_token_is_asked_for_as_over_http_but_not_by_probes(bundle: Bundle) -> None:
    guarded = Front(access=Access({Scope.INFER: [TOKEN]}), grpc=("127.0.0.1", 0))
    with serve_bundle(bundle, Options(front=guarded)) as server:
        assert ask(grpc.insecure_channel(server.grpc)) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as caught:
            ask(grpc.insecure_channel(server.grpc), METADATA)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert b"hasten" in ask(grpc.insecure_channel(server.grpc), METADATA, authorization=f"Bearer {TOKEN}")


def test_an_address_that_others_reach_needs_a_guard(bundle: Bundle) -> None:
    with (
        pytest.raises(UsageError, match="keep strangers out"),
        serve_bundle(bundle, Options(front=Front(grpc=("0.0.0.0", 0)))),
    ):
        pass


def test_tls_for_one_protocol_alone_is_refused(bundle: Bundle, files: tuple[Path, Path, Path]) -> None:
    certificate, key, _ = files
    half = Front(tls=server_context(certificate, key), grpc=("127.0.0.1", 0))
    with pytest.raises(UsageError, match="grpc_tls"), serve_bundle(bundle, Options(front=half)):
        pass
