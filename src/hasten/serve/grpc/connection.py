"""One client's HTTP/2 connection: bytes to calls and answers to bytes.

The protocol itself (frames, header compression, flow control, its floods) is libnghttp2's, through the binding `ngh2`,
which does no I/O. Here are the limits that gRPC adds and the care for a socket: what is written leaves once per turn of
the event loop, a client that does not read is not read from, and what it did not send in time is not waited for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import ngh2
from ngh2 import DataReceived, RequestReceived, StreamClosed

from hasten.errors import RequestError
from hasten.serve.access import NOBODY
from hasten.serve.grpc.backlog import Backlog
from hasten.serve.grpc.call import Call, Parts
from hasten.serve.grpc.headers import Opening, check_headers, encoding_of, no_grpc, opening_of
from hasten.serve.tls import peer_of
from hasten.wire.grpc_framing import ENCODINGS, OK_TRAILERS, MessageReader, error_trailers, frame

if TYPE_CHECKING:
    from hasten.serve.grpc.hub import Hub

__all__ = ["Connection"]

_HEAD = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_ACCEPTED = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
# Below this, one copy is cheaper than one more frame.
_SMALL = 16 * 1024
# Bytes that are written at a time.
_PIECE = 128 * 1024


class Connection(asyncio.BufferedProtocol):
    """Made by the hub for each client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._http = hub.new_http()
        self._room = hub.room
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer = NOBODY
        self._calls: dict[int, Call] = {}
        self._flush_planned = False
        self._paused = False
        self._paused_at = 0.0
        # Streams that are read from again once their client has read.
        self._held: set[Call] = set()
        self._greeted = False
        self._active = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, unless there are too many already."""
        self._transport = cast(asyncio.Transport, transport)
        self._peer = peer_of(transport)
        if self._hub.admit(self):
            self._flush()
        else:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answers any more."""
        self._forget()

    def pause_writing(self) -> None:
        """Stop reading too: a client that does not read must not fill our memory with answers."""
        self._paused, self._paused_at = True, self._loop.time()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()
            self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: what is read is taken before anybody else reads."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes, act on what they say, answer what can be answered at once."""
        if self._transport is None:
            return
        try:
            self._http.receive_data(self._room[:nbytes])
        except ngh2.NGH2Error:
            self.close()
            return
        self._act()
        if self._http.want_write:
            self._flush()

    def reply(self, call: Call, parts: Parts) -> None:
        """Send the only message of a call, and that all is well."""
        if not call.half_closed or call.messages or call.backlog is not None:
            self.send(call, parts)
            self.finish(call, None)
            return
        if call.done or self._transport is None:
            return
        framed = frame(parts)
        if sum([len(part) for part in framed]) <= _SMALL:
            framed = [b"".join(framed)]
        http, stream = self._http, call.id
        try:
            http.send_response(stream, _HEAD)
            for part in framed:
                if len(part) > _PIECE:
                    self._pour(stream, part)
                else:
                    http.send_data(stream, part)
            http.send_trailers(stream, OK_TRAILERS)
        except ngh2.StreamProtocolError:
            pass  # the client may have reset the stream in the same bytes that asked for the answer
        except ngh2.NGH2Error:
            self.close()
            return
        self._settle(call)
        self._plan_flush()

    def _pour(self, stream: int, part: bytes | memoryview) -> None:
        """Send a large part piece by piece, each on its way before the next: the binding copies a whole part twice more
        otherwise. What the client's window has no room for waits as ever.
        """
        view = memoryview(part)
        for at in range(0, len(view), _PIECE):
            self._http.send_data(stream, view[at : at + _PIECE])
            if not self._paused and self._transport is not None:
                data = self._http.data_to_send()
                if data:
                    self._transport.write(data)

    def send(self, call: Call, parts: Parts) -> None:
        """Send one message of a call's answer."""
        if call.done or self._transport is None:
            return
        framed = frame(parts)
        size = sum(map(len, framed))
        if call.backlog is not None and not call.backlog.put(size, self.unsent(call)):
            self._cut_off(call)
            return
        if size <= _SMALL:
            framed = [b"".join(framed)]
        # Not suppress(), here and below: it takes longer than what it is around.
        try:
            if not call.messages:
                self._http.send_response(call.id, _HEAD)
            call.messages += 1
            for part in framed:
                self._http.send_data(call.id, part)
        except ngh2.StreamProtocolError:
            pass  # the client may have reset the stream in the same bytes that asked for the answer
        self._plan_flush()

    def finish(self, call: Call, error: RequestError | None) -> None:
        """Send the status, and stop the client where it is still sending."""
        if call.done or self._transport is None:
            return
        self._settle(call)
        trailers = OK_TRAILERS if error is None else error_trailers(error)
        try:
            if call.messages:
                self._http.send_trailers(call.id, trailers)
            else:
                self._http.send_response(call.id, [*_HEAD, _ACCEPTED, *trailers], end_stream=True)
        except ngh2.StreamProtocolError:
            pass  # as above
        if not call.half_closed:
            # The status must be on its way before the reset takes the stream away.
            self._flush()
            self._reset(call.id, ngh2.ErrorCode.NO_ERROR)
        self._plan_flush()

    def unsent(self, call: Call | None = None) -> int:
        """Return how many bytes of answers wait for the client to read: of a call, or of all of them."""
        return self._http.queued_body_size(None if call is None else call.id)

    def resume(self, call: Call) -> None:
        """Read on where the call left messages waiting."""
        if not call.done and self._transport is not None:
            self._read(call, call.half_closed)
            self._plan_flush()

    def say_goodbye(self) -> None:
        """Announce the end. The first notice names no last call, so that none that crosses it is lost."""
        if self._transport is not None:
            self._http.send_shutdown_notice()
            self._flush()

    def close(self) -> None:
        """Send what is ready to go and close, whatever is under way."""
        transport = self._transport
        if transport is None:
            return
        with suppress(ngh2.NGH2Error):
            transport.write(self._http.data_to_send())
        self._forget()
        # What cannot leave now would keep the socket for as long as its client likes.
        if self._paused:
            transport.abort()
        else:
            transport.close()

    def close_if_idle(self) -> None:
        """End calls that only rest, and close unless others are under way."""
        for call in list(self._calls.values()):
            if call.resting:
                self.finish(call, RequestError("The server is shutting down.", code="unavailable", retry_after_s=1.0))
        self._flush()
        if not self._calls:
            self.close()

    def sweep(self, now: float) -> None:
        """Give up on what took too long."""
        limits = self._hub.limits
        quiet_s = now - self._active
        stalled = self._paused and now - self._paused_at > limits.delivery_s
        if stalled or (not self._greeted and quiet_s > limits.handshake_s):
            self.close()
            return
        if not self._calls and quiet_s > limits.idle_s:
            self.close()
            return
        for call in list(self._calls.values()):
            error = self._overdue(call, now)
            if error is not None:
                # What waits in a queue is told of by the queue.
                (self._refuse if call.cancel is None else self.finish)(call, error)
            elif call.done and now - call.finished > limits.delivery_s:
                self._reset(call.id, ngh2.ErrorCode.CANCEL)
            elif call.backlog is not None and call.backlog.is_late(self.unsent(call), now, limits.delivery_s):
                self._cut_off(call)
        self._plan_flush()

    def _overdue(self, call: Call, now: float) -> RequestError | None:
        """The queue has an exact alarm of its own; here are calls that never got there."""
        receipt_s = self._hub.limits.receipt_s
        if call.deadline is not None and now > call.deadline:
            return RequestError("The deadline passed.", code="deadline")
        if not call.half_closed and not call.method.streaming and now - call.begun > receipt_s:
            return RequestError(f"The message did not arrive within {receipt_s:g} s.", code="request_timeout")
        return None

    def _act(self) -> None:
        calls, hub = self._calls, self._hub
        event: Any
        for event in self._http.events():
            kind = event.__class__
            if kind is DataReceived:
                stream, data, ended = event.stream_id, event.data, event.end_stream
                call = calls.get(stream)
                if call is None or call.done:
                    # Nobody reads it; the connection's window must not shrink all the same.
                    self._acknowledge(stream, len(data))
                    continue
                call.unread += (size := len(data))
                if call.reader.feed(data) or ended or call.unread >= hub.acknowledge_at:
                    self._read(call, ended)
                    held = not call.reader.buffered or hub.account(call)
                else:
                    # In the middle of a large message there is nothing to do for most of its frames.
                    held = hub.hold(call, size)
                if not held:
                    self._refuse(call, _too_many())
            elif kind is RequestReceived:
                self._begin(event)
            elif kind is StreamClosed:
                self._drop(event.stream_id)
            elif kind is ngh2.TrailersReceived:
                call = calls.get(event.stream_id)
                if call is not None and not call.done:
                    self._read(call, True)
            elif kind is ngh2.SettingsReceived:
                self._greeted = True
            elif kind is ngh2.ConnectionClosed:
                self.close()

    def _begin(self, event: Any) -> None:
        known = self._hub.known.get(event.headers)
        if known is not None:
            self._begin_known(event, known)
            return
        headers: dict[bytes, bytes] = dict(event.headers)
        refusal = no_grpc(headers)
        if refusal is not None:
            self._http.send_response(event.stream_id, [(b":status", refusal)], end_stream=True)
            self._flush()
            self._reset(event.stream_id, ngh2.ErrorCode.NO_ERROR)
            return
        reader = MessageReader(self._hub.message_limit, encoding_of(headers))
        method = self._hub.method(headers[b":path"])
        self._active = self._loop.time()
        call = Call(event.stream_id, self, method, reader, self._active, self._hub.limits.stream_ahead)
        self._calls[call.id] = call
        call.half_closed = event.end_stream
        try:
            check_headers(event.headers, headers, self._hub.limits.metadata)
            opening = opening_of(method, headers)
            self._let_in(call, opening)
        except RequestError as error:
            self._refuse(call, error)
            return
        self._hub.remember(event.headers, opening)
        if event.end_stream:
            self._read(call, True)

    def _begin_known(self, event: Any, known: Opening) -> None:
        """Headers that were checked before, on whatever connection; who may do what is decided anew."""
        self._active = now = self._loop.time()
        method = known.method
        reader = MessageReader(self._hub.message_limit, known.encoding)
        call = Call(event.stream_id, self, method, reader, now, self._hub.limits.stream_ahead)
        self._calls[call.id] = call
        call.half_closed = event.end_stream
        try:
            self._let_in(call, known)
        except RequestError as error:
            self._refuse(call, error)
            return
        if event.end_stream:
            self._read(call, True)

    def _let_in(self, call: Call, opening: Opening) -> None:
        """Give a call what its headers say, and decide whether it may. Raises `RequestError`."""
        call.request_id, call.trace, call.lane = opening.request_id, opening.trace, opening.lane
        call.authorization = opening.authorization
        if opening.method.streaming:
            call.backlog = Backlog(self._hub.limits.unread, self._hub.limits.unread_most, call.begun)
        if opening.timeout_s is not None:
            call.deadline = call.begun + opening.timeout_s
        method = opening.method
        # Of a stream each request counts, and the call itself does not.
        call.caller = self._hub.guard.decide(
            method.operation, call.authorization, self._peer, counts=not method.streaming
        )

    def _data(self, stream: int, data: bytes, ended: bool) -> None:
        call = self._calls.get(stream)
        if call is None or call.done:
            # Nobody reads it; the connection's window must not shrink all the same.
            self._acknowledge(stream, len(data))
            return
        size = len(data)
        call.unread += size
        if call.reader.feed(data) or ended or call.unread >= self._hub.acknowledge_at:
            self._read(call, ended)
            held = not call.reader.buffered or self._hub.account(call)
        else:
            # In the middle of a large message there is nothing to do for most of its frames.
            held = self._hub.hold(call, size)
        if not held:
            self._refuse(call, RequestError("Too many unfinished messages are under way.", code="overloaded"))

    def _read(self, call: Call, ended: bool) -> None:
        """Let a call take what came, and open the window for more once it has."""
        try:
            call.read(ended)
        except RequestError as error:
            self._refuse(call, error)
        except Exception as error:
            # A bug of ours: the client gets the protocol's error, the log gets the traceback.
            self._refuse(call, RequestError("The server failed on this request.", code="internal"))
            self._loop.call_exception_handler({"message": "A gRPC method failed.", "exception": error})
        if call.unread and (call.has_room or call.done):
            self._acknowledge(call.id, call.unread)
            call.unread = 0
        if call.backlog is not None and not call.done and not call.has_room:
            self._held.add(call)
        if call.counted or call.reader.buffered:
            self._hub.account(call)

    def _go_on(self) -> None:
        """Read on from streams whose client has read."""
        for call in [call for call in self._held if call.done or call.has_room]:
            self._held.discard(call)
            # Not from here: this may be in the middle of an answer.
            self._loop.call_soon(self.resume, call)

    def _cut_off(self, call: Call) -> None:
        """End a stream whose client does not read. A status would wait behind the answers; this reset is
        RESOURCE_EXHAUSTED to gRPC ("gRPC over HTTP/2", Errors).
        """
        if call.done:
            return
        self._hub.refused(call, RequestError("The answers so far were not read.", code="too_large"))
        self._settle(call)
        self._reset(call.id, ngh2.ErrorCode.ENHANCE_YOUR_CALM)
        self._plan_flush()

    def _refuse(self, call: Call, error: RequestError) -> None:
        """Answer with an error, and tell the observer."""
        if not call.done:
            self._hub.refused(call, error)
            self.finish(call, error)

    def _acknowledge(self, stream: int, size: int) -> None:
        if size:
            try:
                self._http.acknowledge_received_data(size, stream)
            except ngh2.StreamProtocolError:
                return  # the stream is gone

    def _reset(self, stream: int, code: int) -> None:
        if self._transport is not None:
            with suppress(ngh2.StreamProtocolError):
                self._http.reset_stream(stream, code)

    def _settle(self, call: Call) -> None:
        """The call is answered, or nobody waits for it: give back what it holds."""
        call.done = True
        call.finished = self._loop.time()
        cancel, call.cancel = call.cancel, None
        if cancel is not None:
            cancel()
        call.reader.clear()
        if call.counted:
            self._hub.account(call)

    def _drop(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            self._held.discard(call)
            if not call.done:
                self._settle(call)
        if not self._calls:
            self._hub.idle()

    def _forget(self) -> None:
        self._transport = None
        for stream in list(self._calls):
            self._drop(stream)
        self._hub.leave(self)

    def _plan_flush(self) -> None:
        """Write once per turn of the loop: answers come in batches."""
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        if self._transport is None or self._paused:
            return
        http, write = self._http, self._transport.write
        try:
            # In pieces: what grows to the size of all large answers would be copied many times over.
            data = http.data_to_send(_PIECE)
            if not data:
                return
            write(data)
            while len(data) == _PIECE:
                data = http.data_to_send(_PIECE)
                if data:
                    write(data)
        except ngh2.NGH2Error:
            self.close()
            return
        self._act()
        if self._held:
            self._go_on()


def _too_many() -> RequestError:
    return RequestError("Too many unfinished messages are under way.", code="overloaded")
