"""One client's HTTP/2 connection: its bytes to calls, and how long it may take. The `Writer` has the other direction.

The protocol itself (frames, header compression, flow control, its floods) is libnghttp2's, through the binding `ngh2`,
which does no I/O. Here are the limits that gRPC adds to what comes in; what a client did not send or read in time is
not waited for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import ngh2
from ngh2 import DataReceived, RequestReceived, StreamClosed

from hasten.errors import RequestError
from hasten.serve.access import NOBODY
from hasten.serve.grpc.backlog import Backlog
from hasten.serve.grpc.call import Call
from hasten.serve.grpc.headers import Opening, check_headers, encoding_of, no_grpc, opening_of
from hasten.serve.grpc.writer import Writer
from hasten.serve.tls import peer_of
from hasten.wire.grpc_framing import MessageReader

if TYPE_CHECKING:
    from hasten.serve.grpc.hub import Hub

__all__ = ["Connection"]


class Connection(asyncio.BufferedProtocol):
    """Made by the hub for each client."""

    # A compiled class lets go of nothing else.
    __deletable__ = ("_writer",)

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._http = hub.new_http()
        self._room = hub.room
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(hub, self._http, self)
        self._peer = NOBODY
        self._calls: dict[int, Call] = {}
        # Streams that are read from again once their client has read.
        self._held: set[Call] = set()
        self._greeted = False
        self._active = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, unless there are too many already."""
        self._writer.transport = transport = cast(asyncio.Transport, transport)
        self._peer = peer_of(transport)
        if self._hub.admit(self):
            self._writer.flush()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answers any more."""
        self._writer.lose()
        self._forget()
        # The two know each other, and only the garbage collector would part them.
        del self._writer

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writer.pause()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writer.go_on()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: what is read is taken before anybody else reads."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes, act on what they say, answer what can be answered at once."""
        if self._writer.transport is None:
            return
        try:
            self._http.receive_data(self._room[:nbytes])
        except ngh2.NGH2Error:
            self.close()
            return
        self._act()
        if self._http.want_write:
            self._writer.flush()

    def flushed(self) -> None:
        """Act on what the writing ended, and read on from streams whose client has read."""
        self._act()
        if self._held:
            self._go_on()

    def resume(self, call: Call) -> None:
        """Read on where the call left messages waiting."""
        if not call.done:
            self._read(call, call.half_closed)
            self._writer.plan_flush()

    def say_goodbye(self) -> None:
        """Announce the end. The first notice names no last call, so that none that crosses it is lost."""
        if self._writer.transport is not None:
            self._http.send_shutdown_notice()
            self._writer.flush()

    def close(self) -> None:
        """Send what is ready to go and close, whatever is under way."""
        if self._writer.transport is not None:
            self._writer.close()
            self._forget()

    def close_if_idle(self) -> None:
        """End calls that only rest, and close unless others are under way."""
        for call in list(self._calls.values()):
            if call.resting:
                error = RequestError("The server is shutting down.", code="unavailable", retry_after_s=1.0)
                self._writer.finish(call, error)
        self._writer.flush()
        if not self._calls:
            self.close()

    def sweep(self, now: float) -> None:
        """Give up on what took too long."""
        limits, writer = self._hub.limits, self._writer
        quiet_s = now - self._active
        if writer.is_stalled(now) or (not self._greeted and quiet_s > limits.handshake_s):
            self.close()
            return
        if not self._calls and quiet_s > limits.idle_s:
            self.close()
            return
        for call in list(self._calls.values()):
            error = self._overdue(call, now)
            if error is not None:
                # What waits in a queue is told of by the queue.
                (writer.refuse if call.cancel is None else writer.finish)(call, error)
            elif call.done and now - call.finished > limits.delivery_s:
                writer.reset(call.id, ngh2.ErrorCode.CANCEL)
            elif call.backlog is not None and call.backlog.is_late(writer.unsent(call), now, limits.delivery_s):
                writer.cut_off(call)
        writer.plan_flush()

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
                    # As in `_drop`.
                    self._acknowledge(stream, len(data))
                    continue
                call.unread += (size := len(data))
                if call.reader.feed(data) or ended or (call.unread >= hub.acknowledge_at and self._is_tight(call)):
                    self._read(call, ended)
                    held = not call.reader.buffered or hub.account(call)
                else:
                    # In the middle of a large message there is nothing to do for most of its frames.
                    held = hub.hold(call, size)
                if not held:
                    self._writer.refuse(call, _too_many())
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
            self._writer.refuse_http(event.stream_id, refusal)
            return
        reader = MessageReader(self._hub.message_limit, encoding_of(headers))
        method = self._hub.method(headers[b":path"])
        self._active = self._loop.time()
        call = Call(event.stream_id, self._writer, method, reader, self._active, self._hub.limits.stream_ahead)
        self._calls[call.id] = call
        call.half_closed = event.end_stream
        try:
            check_headers(event.headers, headers, self._hub.limits.metadata)
            opening = opening_of(method, headers)
            self._let_in(call, opening)
        except RequestError as error:
            self._writer.refuse(call, error)
            return
        self._hub.remember(event.headers, opening)
        if event.end_stream:
            self._read(call, True)

    def _begin_known(self, event: Any, known: Opening) -> None:
        """Headers that were checked before, on whatever connection; who may do what is decided anew."""
        self._active = now = self._loop.time()
        method = known.method
        reader = MessageReader(self._hub.message_limit, known.encoding)
        call = Call(event.stream_id, self._writer, method, reader, now, self._hub.limits.stream_ahead)
        self._calls[call.id] = call
        call.half_closed = event.end_stream
        try:
            self._let_in(call, known)
        except RequestError as error:
            self._writer.refuse(call, error)
            return
        if event.end_stream:
            self._read(call, True)

    def _let_in(self, call: Call, opening: Opening) -> None:
        """Give a call what its headers say, and decide whether it may. Raises `RequestError`."""
        call.request_id, call.trace, call.lane = opening.request_id, opening.trace, opening.lane
        call.authorization = opening.authorization
        if opening.method.streaming:
            call.backlog = Backlog(self._hub.limits.stream_hold, self._hub.limits.stream_end, call.begun)
        if opening.timeout_s is not None:
            call.deadline = call.begun + opening.timeout_s
        method = opening.method
        # Of a stream each request counts, and the call itself does not.
        call.caller = self._hub.guard.decide(
            method.operation, call.authorization, self._peer, counts=not method.streaming
        )

    def _read(self, call: Call, ended: bool) -> None:
        """Let a call take what came, and open the window for more once it has."""
        try:
            call.read(ended)
        except RequestError as error:
            self._writer.refuse(call, error)
        except Exception as error:
            # A bug of ours: the client gets the protocol's error, the log gets the traceback.
            self._writer.refuse(call, RequestError("The server failed on this request.", code="internal"))
            self._loop.call_exception_handler({"message": "A gRPC method failed.", "exception": error})
        # A stream that has ended needs no window: what it sent is acknowledged when it is gone.
        if not ended and (call.has_room or call.done):
            self._acknowledge_all(call)
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

    def _is_tight(self, call: Call) -> bool:
        """Whether the stream's window is too small for the rest of a message: otherwise its client needs no word."""
        try:
            return call.reader.missing > self._http.stream_local_window_size(call.id)
        except ngh2.StreamProtocolError:
            return False  # its end has come in the same bytes

    def _acknowledge_all(self, call: Call) -> None:
        """Once: a refusal may take the stream away while it is still being read."""
        size, call.unread = call.unread, 0
        self._acknowledge(call.id, size)

    def _acknowledge(self, stream: int, size: int) -> None:
        if size:
            try:
                self._http.acknowledge_received_data(size, stream)
            except ngh2.StreamProtocolError:
                return  # the stream is gone

    def _drop(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            self._held.discard(call)
            if self._writer.transport is not None:
                # Nobody will read it; the connection's window must not shrink all the same.
                self._acknowledge_all(call)
            if not call.done:
                self._writer.settle(call)
        if not self._calls:
            self._hub.idle()

    def _forget(self) -> None:
        for stream in list(self._calls):
            self._drop(stream)
        self._hub.leave(self)


def _too_many() -> RequestError:
    return RequestError("Too many unfinished messages are under way.", code="overloaded")
