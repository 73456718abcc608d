"""The outgoing half of one client's connection: answers to frames, and these to its socket.

What is written leaves once per turn of the event loop, and a large message at once, by one call of the system, since
each call wakes the client. A client that does not read is not read from. What waits for the client's windows waits in
libnghttp2.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import ngh2

from hasten.errors import RequestError
from hasten.serve.grpc.call import Call, Parts
from hasten.wire.grpc_framing import ENCODINGS, OK_TRAILERS, error_trailers, frame

if TYPE_CHECKING:
    from hasten.serve.grpc.hub import Hub

__all__ = ["Owner", "Writer"]

_HEAD = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_ACCEPTED = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
# Below this, one copy is cheaper than one more frame.
_SMALL = 16 * 1024
# Bytes of a large message that pass through libnghttp2 at a time: few enough to stay in the processor's caches (0019).
_PIECE = 32 * 1024
# Bytes that are taken out of libnghttp2 at a time, of anything else; and how many such strings one call writes.
_TAKE = 128 * 1024
_AT_ONCE = 32


class Owner(Protocol):
    """The connection whose outgoing half it is."""

    def flushed(self) -> None:
        """Bytes have left, which may have ended calls, or made room for more."""
        ...

    def resume(self, call: Call) -> None:
        """Read on where the call left messages waiting."""
        ...

    def close(self) -> None:
        """The protocol has failed."""
        ...


class Writer:
    """What calls have as their `Line`. Without a `transport` nobody reads, and nothing is sent."""

    def __init__(self, hub: Hub, http: ngh2.Connection, owner: Owner) -> None:
        self._hub = hub
        self._http = http
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._flush_planned = False
        self._paused = False
        self._paused_at = 0.0
        # What was taken out of libnghttp2, to be written before anything else.
        self._taken: list[bytes] = []
        # What of this connection is in the hub's count of unread bytes.
        self._counted = 0

    def pause(self) -> None:
        """Stop reading too: a client that does not read must not fill our memory with answers."""
        self._paused, self._paused_at = True, self._loop.time()
        if self.transport is not None:
            self.transport.pause_reading()
            self._count()

    def go_on(self) -> None:
        """The client reads again."""
        self._paused = False
        if self.transport is not None:
            self.transport.resume_reading()
            self.flush()

    def is_stalled(self, now: float) -> bool:
        """Whether the client has read nothing at all for too long."""
        return self._paused and now - self._paused_at > self._hub.limits.delivery_s

    def reply(self, call: Call, parts: Parts) -> None:
        """Send the only message of a call, and that all is well."""
        if not call.half_closed or call.messages or call.backlog is not None:
            self.send(call, parts)
            self.finish(call, None)
            return
        if call.done or self.transport is None:
            return
        framed = frame(parts)
        if sum([len(part) for part in framed]) <= _SMALL:
            framed = [b"".join(framed)]
        http, stream = self._http, call.id
        try:
            http.send_response(stream, _HEAD)
            for part in framed:
                self._put(stream, part)
            http.send_trailers(stream, OK_TRAILERS)
        except ngh2.StreamProtocolError:
            pass  # the client may have reset the stream in the same bytes that asked for the answer
        except ngh2.NGH2Error:
            self._owner.close()
            return
        self.settle(call)
        self._leave()

    def send(self, call: Call, parts: Parts) -> None:
        """Send one message of a call's answer."""
        if call.done or self.transport is None:
            return
        framed = frame(parts)
        size = sum(map(len, framed))
        if call.backlog is not None and not call.backlog.put(size, self.unsent(call)):
            self.cut_off(call)
            return
        if size <= _SMALL:
            framed = [b"".join(framed)]
        # Not suppress(), here and below: it takes longer than what it is around.
        try:
            if not call.messages:
                self._http.send_response(call.id, _HEAD)
            call.messages += 1
            for part in framed:
                self._put(call.id, part)
        except ngh2.StreamProtocolError:
            pass  # the client may have reset the stream in the same bytes that asked for the answer
        self._leave()

    def finish(self, call: Call, error: RequestError | None) -> None:
        """Send the status, and stop the client where it is still sending."""
        if call.done or self.transport is None:
            return
        self.settle(call)
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
            self.flush()
            self.reset(call.id, ngh2.ErrorCode.NO_ERROR)
        self.plan_flush()

    def refuse(self, call: Call, error: RequestError) -> None:
        """Answer with an error, and tell the observer."""
        if not call.done:
            self._hub.refused(call, error)
            self.finish(call, error)

    def cut_off(self, call: Call) -> None:
        """End a stream whose client does not read. A status would wait behind the answers; this reset is
        RESOURCE_EXHAUSTED to gRPC ("gRPC over HTTP/2", Errors).
        """
        if call.done:
            return
        self._hub.refused(call, RequestError("The answers so far were not read.", code="too_large"))
        self.settle(call)
        self.reset(call.id, ngh2.ErrorCode.ENHANCE_YOUR_CALM)
        self.plan_flush()

    def refuse_http(self, stream: int, status: bytes) -> None:
        """Answer what is no gRPC call with a status of HTTP."""
        self._http.send_response(stream, [(b":status", status)], end_stream=True)
        self.flush()
        self.reset(stream, ngh2.ErrorCode.NO_ERROR)

    def reset(self, stream: int, code: int) -> None:
        """Take a stream away."""
        if self.transport is not None:
            with suppress(ngh2.StreamProtocolError):
                self._http.reset_stream(stream, code)

    def unsent(self, call: Call | None = None) -> int:
        """Return how many bytes of answers wait for the client to read: of a call, or of all of them."""
        return self._http.queued_body_size(None if call is None else call.id)

    @property
    def crowded(self) -> bool:
        """Whether answers to all clients together wait in too many bytes."""
        return self._hub.unread.much

    def resume(self, call: Call) -> None:
        """Read on where the call left messages waiting."""
        self._owner.resume(call)

    def settle(self, call: Call) -> None:
        """The call is answered, or nobody waits for it: give back what it holds."""
        call.done = True
        call.finished = self._loop.time()
        cancel, call.cancel = call.cancel, None
        if cancel is not None:
            cancel()
        call.reader.clear()
        if call.counted:
            self._hub.account(call)

    def plan_flush(self) -> None:
        """Write once per turn of the loop: answers come in batches."""
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the client's windows have room for."""
        self._flush_planned = False
        transport = self.transport
        if transport is None:
            return
        if self._paused:
            self._count()
            return
        http, wrote = self._http, bool(self._taken)
        try:
            # In pieces: what grows to the size of all large answers would be copied many times over.
            while data := http.data_to_send(_TAKE):
                wrote = True
                self._take(data)
                if len(data) < _TAKE or self._paused:
                    break
        except ngh2.NGH2Error:
            self._owner.close()
            return
        self._write()
        self._count()
        if wrote:
            self._owner.flushed()

    def lose(self) -> None:
        """Nobody reads any more."""
        self.transport = None
        self._taken = []
        self._hub.unread.bytes -= self._counted
        self._counted = 0

    def close(self) -> None:
        """Send what is ready to go, and nothing more."""
        transport = self.transport
        if transport is None:
            return
        taken = self._taken
        self.lose()
        with suppress(ngh2.NGH2Error):
            taken.append(self._http.data_to_send())
        transport.writelines(taken)
        # What cannot leave now would keep the socket for as long as its client likes.
        if self._paused:
            transport.abort()
        else:
            transport.close()

    def _count(self) -> None:
        """Tell the hub how much waits: in libnghttp2 for windows, and in the transport for a socket that is full."""
        assert self.transport is not None
        waiting = self._http.queued_body_size()
        if self._paused:
            waiting += self.transport.get_write_buffer_size()
        self._hub.unread.bytes += waiting - self._counted
        self._counted = waiting

    def _put(self, stream: int, part: bytes | memoryview) -> None:
        """Queue a part of a message; take a large one out again piece by piece, which the binding would copy twice more
        as a whole. What the client's window has no room for waits as ever.
        """
        if len(part) <= _PIECE:
            self._http.send_data(stream, part)
            return
        view = memoryview(part)
        for at in range(0, len(view), _PIECE):
            self._http.send_data(stream, view[at : at + _PIECE])
            if not self._paused and (data := self._http.data_to_send()):
                self._take(data)

    def _take(self, data: bytes) -> None:
        self._taken.append(data)
        if len(self._taken) >= _AT_ONCE:
            self._write()

    def _leave(self) -> None:
        """Write a large message now, while the caches hold it; others once per turn."""
        if self._taken:
            self.flush()
        else:
            self.plan_flush()

    def _write(self) -> None:
        taken, self._taken = self._taken, []
        if self.transport is not None and taken:
            self.transport.writelines(taken)
