"""What the scheduler predicts: work that waits, when a request would be answered, how loaded the next window is.

Work is counted in engine seconds of the ladder's first variant in full batches, so that it can be added up when it
comes and still be right when the level changes. Pure: time comes in as an argument.
"""

from __future__ import annotations

import math

from hasten.serve.ladder import Ladder
from hasten.serve.lanes import Lanes, Queue
from hasten.serve.latency import LatencyTable
from hasten.serve.policy import Policy
from hasten.serve.roster import Roster
from hasten.serve.scale import Scaler
from hasten.serve.waiting import Waiting

__all__ = ["Outlook"]

# How much of the last window's load goes into what is expected of the next.
_LOAD_WEIGHT = 0.3
# A lane that others leave nothing to is still taken to get this share: predictions stay finite.
_LEAST_RATE = 0.01
# How often an idle engine tries what is predicted to be late.
_TRIAL_S = 1.0


class Outlook:
    """Predictions about one model's queue, and the two things that follow load: level and number of instances."""

    def __init__(self, policy: Policy, table: LatencyTable, lanes: Lanes, roster: Roster) -> None:
        self._policy = policy
        self._table = table
        self._lanes = lanes
        self._roster = roster
        self.ladder = Ladder(policy)
        self._scaler = Scaler(policy)
        self._scales = policy.scale[0] != policy.scale[1]
        self._least = policy.scale[0]
        self._numbers = range(len(policy.lanes))
        self._rivals = [_rivals(policy, lanes, number) for number in self._numbers]
        self._costs = [1.0] * len(policy.ladder)
        self._offered = [0.0] * len(policy.lanes)
        self._loads = [0.0] * len(policy.lanes)
        self._served = [
            [n for n in self._numbers if policy.lanes[n].accuracy_floor <= rung.accuracy] for rung in policy.ladder
        ]
        self._trial = -math.inf
        self._lane_costs = [1.0] * len(policy.lanes)
        self.variants = [policy.ladder[0].variant] * len(policy.lanes)
        # The place on the ladder, above its variant, that serves each lane now.
        self.rungs = [0] * len(policy.lanes)
        # Nobody asks for loads where nothing depends on them.
        self.watches = self._scales or self.ladder.moves or len(policy.lanes) > 1
        self._follows = self._scales or self.ladder.moves
        self._came = False
        # When the present window ends; it begins with the first event.
        self.ends = -math.inf if self.watches else math.inf

    def rung(self, head: Waiting, now: float) -> int:
        """The place on the ladder of the variant for a batch of this head.

        That of its lane; or a more accurate one where the batch has free rows, a lane that needs it waits to ride
        along, and the head would still be in time: two half-empty batches cost more than a better variant.
        """
        own = self.rungs[head.lane]
        if own == 0 or head.deadline == math.inf or len(self._numbers) == 1:
            return own
        rows = self._lanes.line_rows(head.lane, head.key)
        if rows >= self._policy.max_batch:
            return own
        needed = own
        for number, lane in enumerate(self._policy.lanes):
            if not lane.background and self._lanes.line_rows(number, head.key):
                needed = min(needed, self.rungs[number])
        variant = self._policy.ladder[needed].variant
        return needed if now + head.times[variant].bound(rows) <= head.deadline else own

    def served_by(self, rung: int) -> list[int]:
        """The lanes whose floors allow a variant."""
        return self._served[rung]

    def offer(self, lane: int, work: float) -> None:
        """Work came, whether or not it is let in."""
        self._offered[lane] += work
        self._came = True

    def drains_in(self, lane: int) -> float:
        """Seconds until the lane's queue is empty if nothing else comes: when coming back makes sense."""
        if len(self._numbers) == 1:
            return self._waits(lane) / self._roster.sharing
        urgent = self._policy.lanes[lane].priority
        work = sum(self._waits(n) for n in self._numbers if self._policy.lanes[n].priority <= urgent)
        return work / self._roster.sharing

    def answered_in(self, request: Waiting, now: float) -> tuple[float, float]:
        """Return seconds until the request would start, and how long its batch then takes at most."""
        number, rows = request.lane, request.rows
        costs, lanes = self._lane_costs, self._lanes
        lane, times = self._policy.lanes[number], request.times[self.variants[number]]
        own = lanes.work_before(request) * costs[number]
        if own and len(lanes.queues[number].lines) == 1:
            # What does not fill a batch before this request goes together with it.
            own -= math.fmod(own, times.mean(times.full))
        before, rate = own, 1.0
        for other, queue, what, weight, share in self._rivals[number]:
            if what < 0:
                cost = costs[other]
                before += queue.work * cost
                rate -= self._loads[other] * cost
            elif what == 0:
                before += min(queue.work * costs[other], own * weight / lane.weight)
            elif queue.order:
                rate -= share
        rate = max(rate, lane.min_share, _LEAST_RATE)
        # Other lanes fill batches up: then only an empty queue gives a small one.
        batch = rows + (lanes.rows if len(costs) > 1 else lanes.line_rows(number, request.key))
        if batch > times.full:
            batch = max(times.full, rows)
        return self._roster.starts_in(now) + before / self._roster.sharing / rate, times.bound(batch)

    def unlikely(self, request: Waiting, now: float) -> str | None:
        """Why a request that would find a place should not take it; None where it should. A guess refuses nobody.

        What is refused is never seen, and so a table that is wrong would stay wrong: an idle engine now and then tries
        a request all the same, and marks it.
        """
        if self.ladder.shedding and self.takes_little(request.lane):
            return "shed"
        times, deadline = request.times[self.variants[request.lane]], request.deadline
        if request.limit == math.inf or not times.known:
            return None
        if now + times.bound(request.rows) > deadline:
            reason = "too late to start"
        else:
            wait_s, run_s = self.answered_in(request, now)
            if now + wait_s + run_s <= deadline and now + wait_s <= request.limit:
                return None
            reason = "would be late"
        if self._roster.free and not self._lanes.count and now >= self._trial + _TRIAL_S:
            self._trial = now
            request.trial = True
            return None
        return reason

    def takes_little(self, lane: int) -> bool:
        """Whether of background work, where it is shed, the lane's share of the next second is already waiting."""
        chosen = self._policy.lanes[lane]
        return chosen.background and self._waits(lane) >= chosen.min_share * self._roster.sharing

    def end_windows(self, now: float) -> int:
        """Look at the windows that ended; move the level; return how many instances there should be."""
        window, wanted = self._policy.window_s, self._roster.wanted
        if self.ends == -math.inf:
            self.ends = now + window
        # After a long rest only as many empty windows count as can change anything.
        longest = 2 * max(self._policy.calm_s, self._policy.settle_s, self._policy.idle_s) + window
        while self.ends <= now:
            self._end_window(self.ends)
            if self._scales:
                load = sum(o * self._cost(n) for n, o in enumerate(self._offered)) / window
                waiting = sum(self._waits(n) for n in self._numbers)
                wanted = self._scaler.target(self.ends, wanted, load, waiting)
            self._offered = [0.0] * len(self._offered)
            self._came = False
            self.ends = max(self.ends + window, now - longest)
        return wanted

    def next_end(self) -> float:
        """When the window ends, where something may follow from it; else infinite."""
        if not self._follows:
            return math.inf
        unsettled = self._came or self.ladder.level > 0 or self._roster.wanted > self._least
        return self.ends if unsettled else math.inf

    def _end_window(self, at: float) -> None:
        capacity = self._roster.sharing * self._policy.window_s
        loads = [offered / capacity for offered in self._offered]
        for number, load in enumerate(loads):
            self._loads[number] += _LOAD_WEIGHT * (load - self._loads[number])
        if self.ladder.moves:
            size = self._policy.max_batch
            first, *_ = seconds = [self._table.seconds(rung.variant, size, None) for rung in self._policy.ladder]
            self._costs = [one / first for one in seconds]
            waiting = sum(self._waits(n) for n in self._numbers) / self._roster.sharing
            self.ladder.observe(at, loads, waiting, self._costs)
            self.rungs = [self.ladder.rung(lane) for lane in self._numbers]
            self._lane_costs = [self._costs[rung] for rung in self.rungs]
            self.variants = [self._policy.ladder[rung].variant for rung in self.rungs]

    def _cost(self, lane: int) -> float:
        """The time of the variant that serves a lane now, relative to the first one's."""
        return self._lane_costs[lane]

    def _waits(self, lane: int) -> float:
        """Engine seconds that wait in a lane, at its present variant."""
        return self._lanes.work(lane) * self._lane_costs[lane]


def _rivals(policy: Policy, lanes: Lanes, number: int) -> list[tuple[int, Queue, int, float, float]]:
    """The other lanes as one lane sees them: their numbers and queues; below 0 where they are more urgent, 0 where they
    are equally so; their weights and minimum shares.
    """
    own = policy.lanes[number].priority
    return [
        (other, lanes.queues[other], rival.priority - own, rival.weight, rival.min_share)
        for other, rival in enumerate(policy.lanes)
        # Who goes after this lane and is owed nothing takes nothing from it.
        if other != number and (rival.priority <= own or rival.min_share)
    ]
