"""How many events the scheduler takes per second on one core: it must never be what limits a server.

Run it with `make bench-core`; it takes a few seconds. Events come as a server sends them, in a loop that keeps the
queue at a level: arrivals with their deadlines, batches that finish, the odd client that leaves. They are recorded
first and then played again, so that only the scheduler's processor time counts.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from statistics import median

from hasten.serve.core import (
    Arrived,
    Cancelled,
    Core,
    Dispatch,
    Event,
    Finished,
    Lane,
    LatencyTable,
    Policy,
    Rung,
    Tick,
)

BAR = 50_000
EVENTS, ROUNDS = 20_000, 3
FIFO = Policy(instances=2, max_batch=8, queue_capacity=256)
FULL = Policy(
    instances=2,
    max_batch=8,
    max_delay_s=0.005,
    queue_capacity=256,
    company="adaptive",
    lanes=(
        Lane(name="critical", priority=1, deadline_s=0.1),
        Lane(name="standard", priority=2, deadline_s=0.5),
        Lane(name="background", priority=3, min_share=0.05, max_age_s=5.0, background=True),
    ),
    ladder=(Rung(variant="f32"), Rung(variant="int8", speed=2.0, accuracy=0.99)),
    max_instances=4,
)
SECONDS = {1: 0.002, 8: 0.006}


def make_core(policy: Policy) -> Core:
    measured = {policy.ladder[0].variant: list(SECONDS.items())}
    return Core(policy, table=LatencyTable(measured, policy.ladder))


def recorded(policy: Policy, depth: int) -> list[tuple[Event, float]]:
    """Events that hold about `depth` requests in the queue, as a server would send them."""
    core, lanes = make_core(policy), [lane.name for lane in policy.lanes]
    running: deque[int] = deque()
    events: list[tuple[Event, float]] = []
    for number in range(EVENTS):
        now = number * 0.0001
        event: Event
        if running and (len(core.lanes) >= depth or number % 9 == 8):
            event = Finished(0.006, running.popleft())
        elif number % 50 == 49:
            event = Cancelled(number - 3)
        elif number % 20 == 19:
            event = Tick()
        else:
            event = Arrived(number, 1, ("x", number % 3), now + 0.5, lanes[number % len(lanes)])
        running += [command.instance for command in core.handle(event, now) if isinstance(command, Dispatch)]
        events.append((event, now))
    return events


def events_per_s(policy: Policy, events: list[tuple[Event, float]]) -> float:
    """Events per second of processor time. The clock is read twice only: reading it costs more than an event."""
    core = make_core(policy)
    began = time.process_time()
    for event, now in events:
        core.handle(event, now)
    return len(events) / (time.process_time() - began)


def main() -> int:
    """Print events per second of a plain queue and of one with everything on, with queues short and long."""
    slow = False
    for name, policy in (("plain queue", FIFO), ("lanes, deadlines, ladder, scaling", FULL)):
        for depth in (8, 200):
            events = recorded(policy, depth)
            found = [events_per_s(policy, events) for _ in range(ROUNDS)]
            print(
                f"{name}, {depth} waiting: {median(found):,.0f} events/s (from {min(found):,.0f} to {max(found):,.0f})"
            )
            slow |= median(found) < BAR
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
