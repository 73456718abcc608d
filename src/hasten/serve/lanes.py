"""Who goes next: lanes by urgency, the earliest deadline first inside a lane, and a guaranteed share for the least.

Strict priority would starve background lanes, so each lane with a minimum share is owed engine time whenever another
lane is served before it; what is owed is paid before anything else (deficit accounting after Shreedhar and Varghese,
"Efficient Fair Queueing Using Deficit Round Robin", 1995). Lanes of one priority share by stride (Waldspurger and
Weihl, 1995). Pure: time comes in as an argument.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from hasten.serve.policy import Lane
from hasten.serve.waiting import Waiting

__all__ = ["Lanes", "Queue"]

# Without a deadline a request takes its turn as if it had this one, in seconds; it never expires by it.
_PATIENCE_S = 60.0
# A request is old in the last quarter of its lane's maximum age.
_OLD = 0.75

# Sorted by the first item; the number makes entries differ, and keeps the order of arrival among equals.
_Entry = tuple[float, int, Waiting]


class Queue:
    """One lane's queue, sorted by due time: as a whole, and by shape. `work` are the engine seconds that wait, as
    predicted when they came.
    """

    __slots__ = ("lane", "lines", "number", "old_s", "order", "owed", "passed", "patience", "rows", "work")

    def __init__(self, lane: Lane, number: int) -> None:
        self.lane = lane
        self.number = number
        self.patience = _PATIENCE_S if lane.max_age_s is None else lane.max_age_s
        self.old_s = math.inf if lane.max_age_s is None else _OLD * lane.max_age_s
        self.order: list[_Entry] = []
        self.lines: dict[Hashable, list[_Entry]] = {}
        self.rows = 0
        self.work = 0.0
        # Engine seconds that others were given and this lane is entitled to; below 0 where it was paid ahead.
        self.owed = 0.0
        self.passed = 0.0

    @property
    def head(self) -> Waiting:
        """The first in order; something must wait."""
        return self.order[0][2]


class Lanes:
    """The queue of one model. A lane is named by its number, the place in `lanes` and in `queues`, which others read.

    `count` are the requests that wait, `rows` their rows. `waiting` are the lanes that have any, the most urgent first,
    and `limits` begins with the earliest limit of all requests; both are for others to read.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = self.queues = [Queue(lane, number) for number, lane in enumerate(lanes)]
        self._urgent_first = sorted(self._lanes, key=lambda lane: lane.lane.priority)
        # What of it has requests; and what there is to look for at all, for every event asks who goes next.
        self.waiting: list[Queue] = []
        self._shares = [lane for lane in self._lanes if lane.lane.min_share] if len(lanes) > 1 else []
        self._ages = any(lane.max_age_s is not None for lane in lanes)
        self._equals = len({lane.priority for lane in lanes}) < len(lanes)
        self._entries: dict[int, _Entry] = {}
        self.limits: list[_Entry] = []
        self._number = 0
        self.count = 0
        self.rows = 0
        self._shapes: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return self.count

    def length(self, number: int) -> int:
        """Requests that wait in a lane."""
        return len(self._lanes[number].order)

    def work(self, number: int) -> float:
        """Engine seconds that wait in a lane, as predicted when they came."""
        return self._lanes[number].work

    def work_before(self, request: Waiting) -> float:
        """Engine seconds in the request's lane that are due before it."""
        lane = self._lanes[request.lane]
        if not lane.order:
            return 0.0
        place = bisect_left(lane.order, (self._due(lane, request), math.inf))
        return lane.work * place / len(lane.order)

    def add(self, request: Waiting) -> None:
        """Let a request wait. Sets its `due`."""
        lane = self._lanes[request.lane]
        order, first = lane.order, not lane.order
        if first:
            self._wake(lane)
        due = request.arrived + lane.patience
        if due >= request.deadline:
            due = request.deadline
        request.due = due
        number = self._number = self._number + 1
        entry = (due, number, request)
        self._entries[request.id] = entry
        insort(order, entry)
        if first:
            self.waiting = [one for one in self._urgent_first if one.order]
        key, rows = request.key, request.rows
        line = lane.lines.get(key)
        if line is None:
            lane.lines[key] = [entry]
        else:
            insort(line, entry)
        if request.limit != math.inf:
            insort(self.limits, (request.limit, number, request))
        lane.rows += rows
        self.rows += rows
        self.count += 1
        self._shapes[key] = self._shapes.get(key, 0) + rows
        lane.work += request.work

    def remove(self, id_: int) -> Waiting | None:
        """Take a request out; None where it is not waiting."""
        entry = self._entries.pop(id_, None)
        if entry is None:
            return None
        due, number, request = entry
        lane, key, rows = self._lanes[request.lane], request.key, request.rows
        order, line = lane.order, lane.lines[key]
        # Most leave from the front.
        del order[0 if order[0] is entry else bisect_left(order, (due, number))]
        del line[0 if line[0] is entry else bisect_left(line, (due, number))]
        if not line:
            del lane.lines[key]
        if request.limit != math.inf:
            del self.limits[bisect_left(self.limits, (request.limit, number))]
        lane.rows -= rows
        self.rows -= rows
        self.count -= 1
        left = self._shapes[key] = self._shapes[key] - rows
        if not left:
            del self._shapes[key]
        if order:
            lane.work -= request.work
        else:
            # An empty lane has no work, whatever sums of fractions say.
            lane.work = 0.0
            self.waiting = [one for one in self._urgent_first if one.order]
        return request

    def get(self, id_: int) -> Waiting | None:
        """The request of an id; None where it is not waiting."""
        entry = self._entries.get(id_)
        return None if entry is None else entry[2]

    def shapes(self, number: int) -> int:
        """How many shapes wait in a lane."""
        return len(self._lanes[number].lines)

    def rows_of(self, key: Hashable) -> int:
        """Rows of one shape that wait, in all lanes."""
        return self._shapes.get(key, 0)

    def line_rows(self, number: int, key: Hashable) -> int:
        """Rows of one shape that wait in a lane."""
        lane = self._lanes[number]
        if len(lane.lines) <= 1:
            return lane.rows if key in lane.lines else 0
        return sum(entry[2].rows for entry in lane.lines.get(key, ()))

    def all(self) -> list[Waiting]:
        """All that wait, the most urgent lane first, each lane in its order."""
        return [entry[2] for lane in self._urgent_first for entry in lane.order]

    def expired(self, now: float) -> list[Waiting]:
        """Those whose limit has passed; a limit counts as passed at its very moment."""
        gone: list[Waiting] = []
        for limit, _, request in self.limits:
            if limit > now:
                break
            gone.append(request)
        return gone

    def line(self, request: Waiting) -> Iterator[Waiting]:
        """The requests of the same lane and shape, in order; begins with `request` where that is the lane's head."""
        for entry in self._lanes[request.lane].lines[request.key]:
            yield entry[2]

    def company(self, request: Waiting, lanes: Sequence[int]) -> Iterator[Waiting]:
        """Requests of the same shape in other lanes, the most urgent lane first, up to the first lane that waits and is
        not among `lanes`: nobody rides past those who may not.
        """
        own = self._lanes[request.lane]
        for lane in self.waiting:
            if lane is own:
                continue
            if lane.number not in lanes:
                return
            for entry in lane.lines.get(request.key, ()):
                yield entry[2]

    def last_below(self, number: int) -> Waiting | None:
        """The request that could wait best: the last one of the least urgent lane below this one."""
        urgent = self._lanes[number].lane.priority
        for lane in reversed(self._urgent_first):
            if lane.lane.priority <= urgent:
                return None
            if lane.order:
                return lane.order[-1][2]
        return None

    def pick(self, now: float, seconds: Callable[[Waiting], float]) -> Waiting:
        """Return the head of the lane that goes next; something must wait. `seconds` predicts a request's batch."""
        waiting = self.waiting
        chosen = waiting[0]
        if len(waiting) == 1:
            return chosen.order[0][2]
        if self._shares:
            for lane in waiting:
                if lane.owed > 0:
                    return lane.order[0][2]
        if self._ages:
            for place, lane in enumerate(waiting):
                head = lane.order[0][2]
                if now - head.arrived >= lane.old_s and place and _is_harmless(head, waiting[:place], now, seconds):
                    return head
        if self._equals:
            for lane in waiting:
                if lane.lane.priority == chosen.lane.priority and lane.passed < chosen.passed:
                    chosen = lane
        return chosen.order[0][2]

    def charge(self, picked: int, shares: Mapping[int, float]) -> None:
        """A batch was sent for a lane, and takes `shares` seconds of each lane that has requests in it. Call it before
        they are removed.
        """
        if self._equals:
            for number, own in shares.items():
                self._lanes[number].passed += own / self._lanes[number].lane.weight
        if not self._shares:
            return
        total = sum(shares.values())
        contended = len(self.waiting) > 1
        for lane in self._shares:
            balance = lane.owed + lane.lane.min_share * total - shares.get(lane.number, 0.0)
            if lane.number == picked and lane.owed > 0 and contended:
                lane.owed = balance
            elif not lane.order:
                # An idle lane pays debts back, and saves nothing up.
                lane.owed = min(balance, 0.0)
            else:
                # What is left over by others costs nothing.
                lane.owed = max(balance, min(lane.owed, 0.0))

    def _wake(self, lane: Queue) -> None:
        """A lane that was empty begins level with those of its priority: it saved nothing up."""
        lane.owed = min(lane.owed, 0.0)
        if not self._equals:
            # Nobody compares what passed.
            return
        peers = [peer.passed for peer in self._lanes if peer.order and peer.lane.priority == lane.lane.priority]
        lane.passed = max(lane.passed, min(peers, default=0.0))

    def _due(self, lane: Queue, request: Waiting) -> float:
        due = request.arrived + lane.patience
        return due if due < request.deadline else request.deadline


def _is_harmless(request: Waiting, before: Sequence[Queue], now: float, seconds: Callable[[Waiting], float]) -> bool:
    """Whether every more urgent head would still meet its deadline after a batch of this request."""
    after = now + seconds(request)
    return all(after + seconds(lane.head) <= lane.head.deadline for lane in before)
