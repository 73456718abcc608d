"""hasten and its peers on the zoo, in one run. Writes docs/benchmarks.md.

One command: make bench-optimize. For each model every tool makes its contestant from the same calibration samples;
hasten optimizes with its whole search; then all of them race in the same rounds on holdout samples, each in a process
of its own on two threads. `--resume` uses what an earlier run finished below `--work`: made models, bundles, results.
To measure a model again, remove its result.json; to optimize it again, its hasten.bundle too. Ctrl-C keeps what is
finished, on the page too.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec

import hasten
from hasten.engine.host import environment
from hasten.errors import HastenError
from hasten.spec.progress import Progress
from hasten.spec.slo import Goal, Slo
from peers.contestants import HASTEN, PEERS, obstacle, reference_of
from peers.outcome import Result, Row
from peers.page import page
from peers.prepare import Refused, made
from peers.race import BOUND, PLAN, Entrant, Race
from peers.subjects import SUBJECTS, Subject

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
PADDING = (
    "hasten cuts the padding off inside the graph. That repairs what clients send and is no acceleration of the model: "
    "clients that send sentences at their own lengths gain the same with every contestant."
)
PACKAGES = ("hasten", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "torch")


def main() -> int:
    given = _arguments()
    results: dict[str, Result] = {}
    failed: dict[str, str] = {}
    try:
        for name in given.models:
            folder = given.work / name
            if not given.resume:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                results[name] = _finished(folder) or _measured(name, folder, given)
            except HastenError as error:
                # A model on which even the reference fails costs itself, not the models after it.
                failed[name] = error.message
                print(f"{name} is left out: {error.message}", file=sys.stderr)
            _write(results, failed, given)
    except KeyboardInterrupt:
        print(f"stopped; {len(results)} of {len(given.models)} models are finished", file=sys.stderr)
        return 130
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hasten and its peers on the zoo, in one run.")
    parser.add_argument("--models", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS), metavar="NAME")
    parser.add_argument("--budget", type=_seconds, default=600.0, help="for hasten, such as 90s or 10m (default)")
    parser.add_argument("--work", type=Path, default=Path("work") / "benchmarks")
    parser.add_argument("--olive", type=Path, default=Path("work") / "olive" / "bin" / "olive", help="Olive's command")
    parser.add_argument("--resume", action="store_true", help="use what an earlier run finished")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 10m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _finished(folder: Path) -> Result | None:
    file = folder / "result.json"
    return msgspec.json.decode(file.read_bytes(), type=Result) if file.exists() else None


def _measured(name: str, folder: Path, given: argparse.Namespace) -> Result:
    """Everything for one model; its result is kept in the folder."""
    started = time.monotonic()

    def say(words: str) -> None:
        print(f"{name} {time.monotonic() - started:6.0f} s  {words}", file=sys.stderr, flush=True)

    subject = Subject(name)
    rows, entrants = _peers(subject, folder, given.olive, say)
    own, entrant, verdict = _hasten(subject, folder, given.budget, say)
    rows[HASTEN] = own
    with Race(subject, rows, reference_of(subject), say) as race:
        race.enter([*entrants, *([entrant] if entrant else [])])
        race.latency()
        race.throughput()
    result = Result(
        model=name,
        about=subject.about[0].upper() + subject.about[1:],
        reference=reference_of(subject),
        metric=subject.data.metric.info,
        samples=len(subject.holdout),
        rounds=PLAN.rounds,
        waited_s=race.watch.waited_s,
        date=datetime.date.today().isoformat(),
        budget_s=given.budget,
        hasten=verdict,
        rows=tuple(race.rows.values()),
        repair=PADDING if "trim_padding" in own.settings else "",
    )
    (folder / "result.json").write_bytes(msgspec.json.encode(result))
    say("finished")
    return result


def _peers(subject: Subject, folder: Path, olive: Path, say) -> tuple[dict[str, Row], list[Entrant]]:
    """Make what the peers run; a row for each, and an entrant for each that has a model."""
    rows: dict[str, Row] = {}
    entrants: list[Entrant] = []
    for peer in PEERS:
        reason = obstacle(peer, subject)
        if not reason:
            say(f"making {peer.id}")
            try:
                model = made(peer, subject, folder, olive)
                entrants.append(Entrant(id=peer.id, model=str(model), target=peer.target, own=peer.own))
            except Refused as error:
                reason = str(error)
        rows[peer.id] = Row(id=peer.id, label=peer.label, settings=peer.settings, reason=reason)
    return rows, entrants


def _hasten(subject: Subject, folder: Path, budget_s: float, say) -> tuple[Row, Entrant | None, str]:
    """Optimize, or take the bundle of an earlier run: its row, what enters the race, and the verdict in words."""
    out = folder / "hasten.bundle"

    def listen(progress: Progress) -> None:
        if progress.note:
            say(f"  {progress.note}")

    try:
        if not out.exists():
            say(f"optimizing for {budget_s:.0f} s")
            goal = Goal(slo=Slo(accuracy_drop_max=BOUND))
            hasten.optimize(
                f"zoo:{subject.zoo}", data=subject.data, slo=goal, out=out, budget_s=budget_s, resume=True,
                listener=listen,
            )  # fmt: skip
        bundle = hasten.open_bundle(out).bundle
    except HastenError as error:
        return Row(id=HASTEN, label="hasten", settings="", reason=f"failed: {error.message}"), None, error.message
    picked = bundle.manifest.picked
    variant = bundle.entry(picked).variant
    made_by = ", ".join(str(step) for step in variant.recipe) or "the model as trained"
    row = Row(id=HASTEN, label=f"hasten: {picked}", settings=f"`{picked}`, {variant.target}; {made_by}")
    entrant = Entrant(id=HASTEN, model=str(bundle.model_path(picked)), target=variant.target)
    return row, entrant, bundle.record().summary


def _write(results: dict[str, Result], failed: dict[str, str], given: argparse.Namespace) -> None:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES} | _olive_version(given.olive)
    ordered = [results[name] for name in SUBJECTS if name in results]
    missing = {name: failed.get(name, "") for name in SUBJECTS if name not in results}
    given.page.write_text(page(ordered, environment(), versions, HASTEN, missing))


def _olive_version(olive: Path) -> dict[str, str]:
    """Asked of the environment that it lives in."""
    python = olive.with_name("python")
    if not python.exists():
        return {}
    words = "import importlib.metadata as m; print(m.version('olive-ai'), m.version('onnxruntime'))"
    found = subprocess.run([str(python), "-c", words], capture_output=True, text=True, check=True).stdout.split()
    return {"olive-ai": f"{found[0]} (with onnxruntime {found[1]})"}


if __name__ == "__main__":
    sys.exit(main())
