"""From a bundle and what the operator wrote to how one model is served: policy, variants beside each other, and what is
known of their times. Reads the bundle's evidence, and decides nothing at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasten.bundle.manifest import Manifest
from hasten.bundle.read import EVIDENCE, Bundle
from hasten.engine.host import environment
from hasten.errors import UsageError
from hasten.serve.config import LaneTable, ModelTable, Scheduling
from hasten.serve.latency import LatencyTable
from hasten.serve.policy import Lane, Policy, Rung
from hasten.spec.evidence import Record
from hasten.spec.serving import Serving
from hasten.spec.values import Value

__all__ = ["STEP", "Plan", "Rules", "check_lane", "check_models", "default_lane", "lanes_of", "plan_of", "warnings_of"]

# What is hardly faster is no step: it would cost memory and accuracy, and carry no load.
STEP = 1.05
# How far engines step back for a server that shares their cores: at 10 it gets nine tenths of a core that both want.
# With 5, after a long turn it waited some milliseconds until it was owed the core again (docs/decisions/0025).
_NICE = 10


class Rules(Value, frozen=True):
    """What an operator decides about the scheduling of all models, and of single ones by name."""

    queue_capacity: int = 256
    lanes: tuple[LaneTable, ...] = ()
    scheduling: Scheduling = Scheduling()
    models: dict[str, ModelTable] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How one model is served: in the layout `serving`, its variants as the policy's ladder names them. `table` learns,
    so that a plan is for one service. `note` is what the operator should know of its ladder; `cache_bytes` is room
    for answers.
    """

    policy: Policy
    serving: Serving
    table: LatencyTable
    default_lane: str
    note: str = ""
    cache_bytes: int = 0

    @property
    def variants(self) -> tuple[str, ...]:
        """The ids of the variants that each instance holds, that of normal load first."""
        return tuple(rung.variant for rung in self.policy.ladder)

    @property
    def threads(self) -> int:
        """Threads of all instances that may run at the same time."""
        return self.policy.scale[1] * (self.serving.threads or environment().cores_logical)

    @property
    def nice(self) -> int:
        """How far engines step back for the server, where nobody said."""
        return _NICE if self.threads >= environment().cores_logical else 0

    @property
    def one_core(self) -> bool:
        """Whether server and engines have a single core between them."""
        return environment().cores_logical == 1


def plan_of(bundle: Bundle, rules: Rules) -> Plan:
    """Return the plan. Raises `UsageError` for rules that do not fit the bundle."""
    manifest, scheduling = bundle.manifest, rules.scheduling
    mine = rules.models.get(manifest.name, ModelTable())
    record = _record(bundle)
    higher = record is None or record.reference.measurement.metric.higher_is_better
    ladder, note = _ladder(manifest, mine, on=scheduling.ladder, higher_is_better=higher)
    serving = manifest.serving_of(ladder[0].variant)
    least, most = _scale(manifest.name, mine, serving.instances)
    policy = Policy(
        instances=min(max(serving.instances, least), most),
        min_instances=least,
        max_instances=most,
        max_batch=min(serving.max_batch, manifest.max_batch),
        max_delay_s=serving.max_delay_ms / 1e3,
        queue_capacity=mine.queue_capacity or rules.queue_capacity,
        company=scheduling.company,
        lanes=lanes_of(rules.lanes, higher_is_better=higher),
        tenant_capacity=scheduling.tenant_capacity,
        ladder=ladder,
        window_s=scheduling.window_s,
        calm_s=scheduling.calm_s,
        settle_s=scheduling.settle_s,
        idle_s=scheduling.idle_s,
    )
    return Plan(
        policy=policy,
        serving=serving,
        table=_table(record, serving, ladder),
        default_lane=default_lane(policy.lanes, scheduling.default_lane),
        note=note,
        cache_bytes=mine.cache_bytes,
    )


def lanes_of(tables: Sequence[LaneTable], *, higher_is_better: bool = True) -> tuple[Lane, ...]:
    """Return the policy's lanes; one called "default" where none are named. Where lower is better, accuracies and
    floors change their sign: then higher is better again. Raises `UsageError` for lanes out of order.
    """
    lanes: list[Lane] = []
    for place, table in enumerate(tables, 1):
        priority = place if table.priority is None else table.priority
        if lanes and priority < lanes[-1].priority:
            raise UsageError(
                f"The lane {table.name!r} has priority {priority} and stands after {lanes[-1].name!r} with "
                f"{lanes[-1].priority}.",
                remedy="List the lanes in order of urgency (1 is most urgent), or leave the priorities out.",
            )
        floor = table.accuracy_floor
        lanes.append(
            Lane(
                name=table.name,
                priority=priority,
                weight=table.weight,
                min_share=table.min_share,
                max_age_s=table.max_age_s,
                deadline_s=table.deadline_s,
                accuracy_floor=float("-inf") if floor is None else floor if higher_is_better else -floor,
                background=table.background,
                capacity=table.capacity,
            )
        )
    return tuple(lanes) or (Lane(accuracy_floor=float("-inf")),)


def default_lane(lanes: Sequence[Lane], named: str) -> str:
    """Return the lane of requests that name none: the one that the operator named, else the least urgent one that is
    not background, because whoever wants more than others says so. Raises `UsageError` for a lane that is not there.
    """
    if named:
        check_lane(named, lanes, "default_lane")
        return named
    usual = [lane for lane in lanes if not lane.background] or lanes
    return usual[-1].name


def check_lane(name: str, lanes: Sequence[Lane], where: str) -> None:
    """Raise `UsageError` where no lane has this name."""
    names = [lane.name for lane in lanes]
    if name not in names:
        raise UsageError(f"{where}: there is no lane {name!r}.", remedy=f"Name one of: {', '.join(names)}.")


def check_models(rules: Rules, names: Iterable[str]) -> None:
    """Raise `UsageError` where rules are for a model that is not served."""
    served = list(names)
    for name in rules.models:
        if name not in served:
            raise UsageError(
                f"[models.{name}] is for a model that is not served.", remedy=f"Served are: {', '.join(served)}."
            )


def warnings_of(plans: Iterable[Plan]) -> list[str]:
    """What an operator should know: ladders without steps, and more threads of engines than cores."""
    found = list(plans)
    words = [plan.note for plan in found if plan.note]
    threads, cores = sum(plan.threads for plan in found), environment().cores_logical
    if threads > cores:
        words.append(
            f"With all instances up, the engines run {threads} threads on {cores} core{'s' if cores > 1 else ''}: "
            "they slow each other down. Fewer max_instances, or a bundle planned for fewer threads, would not."
        )
    return words


def _record(bundle: Bundle) -> Record | None:
    """The bundle's evidence; None for one of a reference alone that never had any."""
    return bundle.record() if any(file.path == EVIDENCE for file in bundle.manifest.files) else None


def _scale(name: str, mine: ModelTable, usual: int) -> tuple[int, int]:
    """The least and the most instances: as many as the bundle was planned for, where the operator says nothing."""
    least = min(usual, mine.max_instances or usual) if mine.min_instances is None else mine.min_instances
    most = max(usual, least) if mine.max_instances is None else mine.max_instances
    if least > most:
        raise UsageError(
            f"[models.{name}] has min_instances {least} and max_instances {most}.", remedy="Make the least smaller."
        )
    return least, most


def _ladder(manifest: Manifest, mine: ModelTable, *, on: bool, higher_is_better: bool) -> tuple[tuple[Rung, ...], str]:
    """The variants to serve, and a note where there is only one although a ladder is wanted."""
    named = mine.variants
    for id_ in named:
        if id_ not in manifest.ladder:
            raise UsageError(
                f"[models.{manifest.name}] variants: {id_!r} is no variant that may serve.",
                remedy=f"Name some of: {', '.join(manifest.ladder)}.",
            )
    first = named[0] if named else manifest.picked
    rungs = [_rung(manifest, first, first, higher_is_better)]
    if not on:
        return tuple(rungs), ""
    # Of those that nobody named: the slowest that is faster goes first.
    others = [_rung(manifest, id_, first, higher_is_better) for id_ in named[1:] or manifest.ladder if id_ != first]
    for rung in others if named else sorted(others, key=lambda one: one.speed):
        if rung.speed >= STEP * rungs[-1].speed:
            rungs.append(rung)
        elif named:
            raise UsageError(
                f"[models.{manifest.name}] variants: {rung.variant!r} was not measured to be faster than "
                f"{rungs[-1].variant!r}.",
                remedy="Order them from normal load downwards, each faster than the one before.",
            )
    note = "" if len(rungs) > 1 else (
        f"{manifest.name}: the ladder has no step, for no variant was measured to be faster than {first!r}. "
        f"[models.{manifest.name}] variants = [...] can begin with a slower one of {', '.join(manifest.ladder)}."
    )  # fmt: skip
    return tuple(rungs), note


def _rung(manifest: Manifest, id_: str, first: str, higher_is_better: bool) -> Rung:
    """A variant with its accuracy, and its speed relative to the first one; 0 where one was not measured."""
    entry = manifest.variants[id_]
    own, base = entry.latency_p50_ms.value, manifest.variants[first].latency_p50_ms.value
    speed = 1.0 if id_ == first else base / own if base and own else 0.0
    accuracy = entry.accuracy.value
    if accuracy is None:
        # The only variant is all that there is; no other one may be taken for as good unseen.
        return Rung(variant=id_, speed=speed if id_ == first else 0.0, accuracy=float("inf"))
    return Rung(variant=id_, speed=speed, accuracy=accuracy if higher_is_better else -accuracy)


def _table(record: Record | None, serving: Serving, ladder: Sequence[Rung]) -> LatencyTable:
    """What the bundle measured in the layout that is served; empty, to learn from what runs, where it measured none."""
    found = record.deployments if record is not None else ()
    return LatencyTable.of_times({one.variant: one.times for one in found}, serving, ladder)
