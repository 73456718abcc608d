"""How many events the scheduler takes per second on one core: it must never be what limits a server.

Run it with `make bench-core`; it takes a few seconds. Events come as a server sends them, in a loop that keeps the
queue at a level: arrivals with their deadlines, batches that finish, the odd client that leaves. Time in the loop is
made up, and only the scheduler's processor time counts.
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
EVENTS, ROUNDS = 10_000, 3
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


def events_per_s(policy: Policy, *, depth: int) -> float:
    """Hold about `depth` requests in the queue and return events per second of processor time."""
    first = policy.ladder[0].variant
    core = Core(policy, table=LatencyTable({first: list(SECONDS.items())}, policy.ladder))
    lanes = [lane.name for lane in policy.lanes]
    running: deque[int] = deque()
    now, id_, spent, count = 0.0, 0, 0.0, 0
    while count < EVENTS:
        now += 0.0001
        event: Event
        if running and (len(core.lanes) >= depth or (len(running) == 2 and id_ % 8 == 0)):
            event = Finished(0.006, running.popleft())
            id_ += 1
        elif id_ % 50 == 49:
            event, id_ = Cancelled(id_ - 3), id_ + 1
        elif id_ % 20 == 19:
            event, id_ = Tick(), id_ + 1
        else:
            event, id_ = Arrived(id_, 1, ("x", id_ % 3), now + 0.5, lanes[id_ % len(lanes)]), id_ + 1
        began = time.process_time()
        commands = core.handle(event, now)
        spent += time.process_time() - began
        running += [command.instance for command in commands if isinstance(command, Dispatch)]
        count += 1
    return count / spent


def main() -> int:
    """Print events per second of a plain queue and of one with everything on, with queues short and long."""
    slow = False
    for name, policy in (("plain queue", FIFO), ("lanes, deadlines, ladder, scaling", FULL)):
        for depth in (8, 200):
            found = [events_per_s(policy, depth=depth) for _ in range(ROUNDS)]
            print(
                f"{name}, {depth} waiting: {median(found):,.0f} events/s (from {min(found):,.0f} to {max(found):,.0f})"
            )
            slow |= median(found) < BAR
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
