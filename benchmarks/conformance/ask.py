"""Sends a probe and puts what comes back in words. Sockets and grpcio only: no client's checks stand in between."""

from __future__ import annotations

import gzip
import http.client
import zlib
from collections.abc import Mapping
from typing import Any

import grpc

from conformance.probe import GrpcProbe, HttpProbe, Outcome
from conformance.words import grpc_words, http_words

__all__ = ["ask_grpc", "ask_http"]

PATIENCE_S = 10.0
SERVICE = "/inference.GRPCInferenceService/"


def ask_http(probe: HttpProbe, port: int) -> Outcome:
    """What an HTTP server on this port of loopback does with it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.putrequest(probe.verb, probe.path, skip_accept_encoding=True)
        for name, value in probe.headers.items():
            connection.putheader(name, value)
        if probe.chunked and probe.body is not None:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(_chunks(probe.body), encode_chunked=False)
        else:
            if probe.body is not None:
                connection.putheader("Content-Length", str(len(probe.body)))
            connection.endheaders(probe.body)
        answer = connection.getresponse()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
    except TimeoutError:
        return Outcome("no answer", f"within {PATIENCE_S:g} s")
    except (OSError, http.client.HTTPException) as error:
        return Outcome("connection lost", type(error).__name__)
    finally:
        connection.close()
    return Outcome(str(answer.status), http_words(answer.status, headers, _plain(body, headers)))


def _chunks(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])]
    return b"".join([*parts, b"0\r\n\r\n"])


def _plain(body: bytes, headers: Mapping[str, str]) -> bytes:
    match headers.get("content-encoding"):
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case _:
            return body


def ask_grpc(probe: GrpcProbe, channel: Any) -> Outcome:
    """What a gRPC server behind this channel does with it."""
    try:
        if probe.streams:
            call = channel.stream_stream(SERVICE + probe.method)
            answers = list(call(iter([probe.body]), timeout=PATIENCE_S))
        else:
            answers = [channel.unary_unary(SERVICE + probe.method)(probe.body, timeout=PATIENCE_S)]
    except grpc.RpcError as error:
        return Outcome(error.code().name)  # type: ignore[attr-defined]
    return Outcome("OK", " then ".join(grpc_words(probe.answer.FromString(answer)) for answer in answers))
