"""What is served under overload: a zoo model as a bundle, its lanes, its ladder, and a request of one row.

Deadlines follow the model: multiples of the time of a full batch, as in docs/scheduling.md.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from hasten.bundle.manifest import MANIFEST, Manifest, decode_manifest, encode_manifest
from hasten.bundle.read import open_bundle
from hasten.errors import BundleError
from hasten.serve.plan import STEP
from hasten.serve.policy import Lane
from hasten.spec.serving import Serving
from hasten.spec.slo import Goal, Slo
from hasten.spec.variant import REFERENCE
from hasten.wire.oip_client import Ask, http_infer
from overloading.sender import Message
from servers.apart import WORK
from serving.real import real

__all__ = [
    "BATCH",
    "MIX",
    "NAMES",
    "SERVING",
    "Subject",
    "accuracies",
    "climbing",
    "deadlines",
    "lanes_of",
    "messages",
    "serve_toml",
    "set_serving",
    "subject",
]

BATCH = 8
# One instance with one thread: server and engine have one core together.
SERVING = Serving(instances=1, threads=1, max_batch=BATCH, max_delay_ms=10.0)
NAMES = ("critical", "standard", "background")
MIX = (0.3, 0.4, 0.3)
# Full batches that an answer may take, by lane; background work takes whatever it gets for so many seconds.
_CRITICAL, _STANDARD, _AGE_S = 5, 10, 5.0
# Bounds on the loss of accuracy under which a step of the ladder is looked for, one after the other, and the share of
# the time that each gets.
_DROPS = {0.005: 0.25, 0.02: 0.25, 0.05: 0.5}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as a bundle, and the messages that ask for one row, by lane."""

    name: str
    bundle: Path
    messages: tuple[Message, ...]


def subject(name: str, work: Path) -> Subject:
    """Write the bundle of the reference alone."""
    bundle = real(name, work, max_batch=BATCH).bundle
    set_serving(bundle, SERVING)
    return Subject(name, bundle, messages(bundle))


def messages(bundle: Path) -> tuple[Message, ...]:
    """A golden sample as a request for each lane, which is named by its priority: Triton knows those, too."""
    opened = open_bundle(bundle)
    inputs = opened.golden(opened.manifest.picked).inputs[0]
    name = opened.manifest.name
    asked = [http_infer(Ask(model=name, inputs=inputs, priority=number)) for number in range(1, len(NAMES) + 1)]
    return tuple(Message(f"/v2/models/{name}/infer", headers, body) for headers, body in asked)


def set_serving(bundle: Path, serving: Serving) -> None:
    """Give all variants of a bundle these serving defaults."""
    manifest = _manifest(bundle)
    everywhere = dict.fromkeys(manifest.variants, serving)
    _write(bundle, msgspec.structs.replace(manifest, serving=everywhere))


def climbing(name: str, budget_s: float) -> Path | None:
    """A bundle that `hasten optimize` made, served from the reference downwards: kept in work/, made on the first call
    in `budget_s` seconds or a little more. None where it proved no variant to be faster and good enough.

    The answer's own pick is the fastest variant that is good enough, below which there is nothing to step down to. A
    ladder is for emergencies, and so the bound on accuracy is loosened until there is a step; the page shows both.
    """
    folder = WORK / "overload" / name
    if not _is_usable(folder) and not _optimized(name, folder, budget_s):
        return None
    manifest = _manifest(folder)
    faster = _faster(manifest)
    if not faster:
        return None
    ladder = (REFERENCE, faster[0])
    # Texts of different lengths are not stacked, whence a bundle for them is proven for single rows only. Requests of
    # this benchmark have one length.
    _write(folder, msgspec.structs.replace(manifest, name=name, picked=REFERENCE, ladder=ladder, max_batch=BATCH))
    set_serving(folder, SERVING)
    return folder


def _is_usable(folder: Path) -> bool:
    """Whether there is a bundle that this version can serve: an earlier one may have left it."""
    try:
        open_bundle(folder).record()
    except BundleError:
        return False
    return True


def _optimized(name: str, folder: Path, budget_s: float) -> bool:
    """Write a bundle with a ladder; whether there is one."""
    from hasten.errors import HastenError
    from hasten.facade import optimize

    for drop, share in _DROPS.items():
        seconds = share * budget_s
        print(f"optimizing {name} for {seconds:g} s, once, accuracy drop {drop:g}", file=sys.stderr, flush=True)
        goal = Goal(slo=Slo(accuracy_drop_max=drop))
        try:
            found = optimize(f"zoo:{name}", out=folder, slo=goal, budget_s=seconds, rehearse=False, overwrite=True)
        except HastenError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        if found.bundle is not None and _faster(_manifest(folder)):
            return True
    # The next call may have more time, or a quieter machine.
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _faster(manifest: Manifest) -> list[str]:
    """Variants to step down to, the fastest first: a bundle's ladder also has what is slower and takes less memory."""
    times = {id_: manifest.variants[id_].latency_p50_ms.value or math.inf for id_ in manifest.ladder}
    own = manifest.variants[REFERENCE].latency_p50_ms.value or 0.0
    return sorted((id_ for id_, time in times.items() if own >= STEP * time), key=times.__getitem__)


def accuracies(bundle: Path) -> dict[str, float]:
    """What was measured of each variant on held-out data."""
    return {id_: entry.accuracy.value or float("nan") for id_, entry in _manifest(bundle).variants.items()}


def lanes_of(batch_s: float) -> tuple[Lane, ...]:
    """The lanes of a model whose full batch takes so many seconds."""
    return (
        Lane(name="critical", priority=1, deadline_s=_CRITICAL * batch_s),
        Lane(name="standard", priority=2, deadline_s=_STANDARD * batch_s),
        Lane(name="background", priority=3, min_share=0.05, max_age_s=_AGE_S, background=True),
    )


def deadlines(lanes: Sequence[Lane]) -> list[float]:
    """Seconds by lane within which an answer counts."""
    return [lane.deadline_s or lane.max_age_s or float(np.inf) for lane in lanes]


def serve_toml(lanes: Sequence[Lane], *, company: str = "adaptive", ladder: bool = False, capacity: int = 256) -> str:
    """The configuration of a server with these lanes (none: one lane for all) and a queue of this capacity."""
    lines = [f"queue_capacity = {capacity}"]
    for lane in lanes:
        lines += ["[[lanes]]", f'name = "{lane.name}"', f"priority = {lane.priority}", f"min_share = {lane.min_share}"]
        lines += [f"{key} = {value!r}" for key in ("deadline_s", "max_age_s") if (value := getattr(lane, key))]
        lines += [f"background = {str(lane.background).lower()}", ""]
    lines += ["[scheduling]", f'company = "{company}"', f"ladder = {str(ladder).lower()}"]
    return "\n".join(lines) + "\n"


def _manifest(bundle: Path) -> Manifest:
    return decode_manifest((bundle / MANIFEST).read_bytes(), str(bundle))


def _write(bundle: Path, manifest: Manifest) -> None:
    (bundle / MANIFEST).write_bytes(encode_manifest(manifest))
