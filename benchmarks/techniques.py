"""Every technique on every zoo model: speed, accuracy change, or why it does not apply. Writes docs/techniques.md.

One command: make techniques (`--models` and `--techniques` restrict it, and what is not measured anew stays in the page
as it is; finished cells are kept in a work folder and used again by `--resume`). Each cell is paired: the technique's
result takes turns with the model as it was trained, on the same engine and device, in the same rounds; accuracy changes
are paired by sample. A technique is preceded by what makes it apply (a newer operator set, folded constants), and that
comes for free in its ratio.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from hasten.data.dataset import Dataset, Subset
from hasten.data.split import split
from hasten.engine.base import reference_engine
from hasten.engine.host import environment
from hasten.errors import HastenError
from hasten.measure.accuracy import AccuracyMeter
from hasten.measure.base import AnswerBook, Pair, Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import LatencyMeter
from hasten.model.base import Model
from hasten.model.open import open_model
from hasten.optimize.build import Builder
from hasten.optimize.trial import load_arm
from hasten.optimize.wish import Want, Wish, compose
from hasten.spec.applied import Build
from hasten.spec.measurement import Figure
from hasten.spec.target import Precision, Target
from hasten.spec.values import Value
from hasten.spec.variant import Step
from hasten.transform.base import transforms
from hasten.zoo.open import zoo_data, zoo_model

PAGE = Path(__file__).parent.parent / "docs" / "techniques.md"
MODELS = ("ppocr-rec", "magika", "face-detector", "efficientnet-lite0", "minilm")
NOT_RUN = "not run"
# Between two cells of the page; a bar within a text is escaped.
_CELL = re.compile(r"(?<!\\) \| ")
SAMPLES = 150
PLAN = Plan(rounds=16, runs=4, seed=7)
# Techniques whose results are for another engine than the format's usual one.
ENGINES = {"compute_bf16": "openvino", "quantize_nncf": "openvino", "cascade": "openvino"}
PRECISIONS: dict[str, Precision] = {
    "quantize_static": "int8",
    "quantize_dynamic": "int8",
    "quantize_nncf": "int8",
    "cast_f16": "f16",
    "compute_bf16": "bf16",
    "cascade": "int8",
}
# What stands before a technique so that it can apply at all.
FOLDED = (
    "fuse",
    "layout",
    "replace_operators",
    "deduplicate",
    "quantize_static",
    "quantize_dynamic",
    "quantize_weights",
    "cascade",
)
Options = dict[str, str | int | float | bool]
# Options where a technique's defaults leave the choice to the user; "technique model" goes before "technique".
OPTIONS: dict[str, Options] = {
    "quantize_static": {
        "operators": "Conv,MatMul,Gemm,ConvTranspose",
        "method": "percentile",
        "samples": 32,
        "reduce_range": True,
    },
    "quantize_dynamic": {"reduce_range": True},
    "quantize_nncf": {"result": "openvino"},
    "cascade": {"operators": "Conv,MatMul,Gemm,ConvTranspose", "method": "percentile", "samples": 32},
    "quantize_nncf face-detector": {},
    "reduce_length minilm": {"length": 24},
    "reduce_length magika": {"length": 1536},
}


class Cell(Value, frozen=True):
    """One technique on one model: figures, or the reason why there are none."""

    technique: str
    model: str
    engine: str
    speedup: Figure | None = None
    change: Figure | None = None
    metric: str = ""
    unit: str = "share"
    reason: str = ""
    build: Build | None = None


class Row(NamedTuple):
    """One technique as it stands in the page, with texts by model. All were measured on one machine."""

    technique: str
    machine: str
    texts: dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--techniques", nargs="*", default=transforms.names())
    parser.add_argument("--work", type=Path, default=Path("work") / "techniques")
    parser.add_argument("--resume", action="store_true", help="use the finished cells of an earlier run")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    started, machine = time.monotonic(), this_machine()
    kept = rows_of(PAGE.read_text()) if PAGE.exists() else []
    cells: list[Cell] = []
    for name in given.models:
        cells += column(name, given.techniques, given.work, resume=given.resume)
        PAGE.write_text(page(merged(kept, cells, machine)))
    print(f"{PAGE.name}: {len(cells)} cells in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def column(name: str, techniques: list[str], work: Path, *, resume: bool) -> Iterator[Cell]:
    """All cells of one model."""
    path, data = zoo_model(name), zoo_data(name)
    parts = split(data)
    builder = Builder(path, parts.calibration, work / name)
    samples = data.subset(parts.tuning.indices[:SAMPLES])
    book: dict[str, AnswerBook] = {}
    for technique in techniques:
        file = work / f"{name}.{technique}.json"
        if resume and file.exists():
            yield msgspec.json.decode(file.read_bytes(), type=Cell)
            continue
        cell = measured(name, technique, open_model(path), builder, samples, book)
        file.write_bytes(msgspec.json.encode(cell))
        print(f"{name:<20} {technique:<20} {said(cell)}", flush=True)
        yield cell


def measured(
    name: str, technique: str, model: Model, builder: Builder, samples: Subset, books: dict[str, AnswerBook]
) -> Cell:
    """Build with the technique and measure beside the model as trained."""
    engine = ENGINES.get(technique, reference_engine(model.format))
    target = Target(engine=engine, precision=PRECISIONS.get(technique, "f32"))
    try:
        steps = wants(technique, model, options(technique, name, samples.dataset))
        made = compose(Wish(id=technique, target=target, wants=steps), builder)
        candidate = builder.build(made.variant)
        with (
            load_arm(model.path, Target(engine=engine)) as before,
            load_arm(candidate, target) as after,
        ):
            pair = Pair(
                reference=before,
                candidate=after,
                fresh=lambda: load_arm(candidate, target),
                data=samples,
                book=books.setdefault(engine, AnswerBook()),
                plan=PLAN,
                watch=Watch(20.0),
                label=technique,
            )
            figures = LatencyMeter().measure(pair) | AccuracyMeter().measure(pair)
    except HastenError as error:
        return Cell(technique=technique, model=name, engine=engine, reason=error.message)
    info = samples.dataset.metric.info
    return Cell(
        technique=technique,
        model=name,
        engine=engine,
        speedup=figures["speedup"],
        change=figures["accuracy_change"],
        metric=info.name,
        unit=info.unit,
        build=made.build,
    )


def wants(technique: str, model: Model, given: Options) -> tuple[Want, ...]:
    """The technique, after what makes it apply."""
    before: list[Want] = []
    if model.format == "onnx" and technique not in ("raise_opset", "fold", "slim"):
        if model.opset < 17:
            before.append(Want(step=Step(transform="raise_opset"), required=False))
        if technique in FOLDED:
            before.append(Want(step=Step(transform="fold"), required=False))
    return (*before, Want(step=Step(transform=technique, options=given)))


def options(technique: str, name: str, data: Dataset) -> Options:
    """Options for one cell; how pixels are prepared is what the data says."""
    if technique == "fold_preprocess" and data.preprocess is not None:
        return {**data.preprocess.options()}
    return OPTIONS.get(f"{technique} {name}", OPTIONS.get(technique, {}))


def this_machine() -> str:
    """What a ratio depends on beside the technique."""
    host = environment()
    packages = ", ".join(f"{package} {version}" for package, version in host.packages.items())
    virtual = ", virtual" if host.virtual else ""
    return f"{host.processor}, {host.cores_physical} cores, {' '.join(host.features)}{virtual}. {packages}"


def merged(kept: list[Row], cells: list[Cell], machine: str) -> list[Row]:
    """Rows in the order of the registry, each new cell in its place. Of a row that was measured on another machine
    nothing is left beside them.
    """
    rows = {row.technique: row for row in kept}
    for cell in cells:
        old = rows.get(cell.technique)
        texts = old.texts if old is not None and old.machine == machine else {}
        rows[cell.technique] = Row(cell.technique, machine, {**texts, cell.model: said(cell)})
    return [rows[name] for name in transforms.names() if name in rows]


def rows_of(text: str) -> list[Row]:
    """The rows of a page. `page` writes them again as they are."""
    machines = dict(re.findall(r"^Machine (\d+): (.*)\.$", text, re.MULTILINE))
    [models] = re.findall(r"^\| technique \| (.*) \|$", text, re.MULTILINE)
    found = re.findall(r"^\| \[`(\w+)`\]\(.*?\), machine (\d+) \| (.*) \|$", text, re.MULTILINE)
    return [
        Row(technique, machines[number], dict(zip(models.split(" | "), _CELL.split(texts), strict=True)))
        for technique, number, texts in found
    ]


def page(rows: list[Row]) -> str:
    """The whole page: one table for each model would be long, so techniques are rows and models are columns."""
    machines = list(dict.fromkeys(row.machine for row in rows))
    models = [name for name in MODELS if any(name in row.texts for row in rows)]
    lines = [
        "# Techniques on the zoo",
        "",
        "Made by `make techniques`. Each cell: how many times as fast as the model as trained, on the same engine, "
        "paired in the same rounds (batch 1, all cores); the change of the metric, paired by sample on tuning data; "
        "95 % intervals. Otherwise the reason. What each technique does stands in `docs/techniques/`.",
        "",
        *(f"Machine {number}: {machine}.\n" for number, machine in enumerate(machines, 1)),
        "| technique | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    for row in rows:
        name, number = row.technique, machines.index(row.machine) + 1
        texts = [row.texts.get(model, NOT_RUN) for model in models]
        lines.append(f"| [`{name}`](techniques/{name}.md), machine {number} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, ""])


def said(cell: Cell) -> str:
    """One cell as text."""
    if cell.speedup is None or cell.change is None:
        return cell.reason.replace("|", "\\|").replace("\n", " ")[:220]
    where = "" if cell.engine == "onnxruntime" else f"{cell.engine}: "
    return f"{where}{interval(cell.speedup, 1, 2, '×')}<br>{cell.metric} {change(cell)}{skipped(cell)}"


def change(cell: Cell) -> str:
    assert cell.change is not None
    if cell.unit == "share":
        return interval(cell.change, 100, 2, " points", sign="+")
    return interval(cell.change, 1, 4, "", sign="+")


def skipped(cell: Cell) -> str:
    """How many nodes the guard left alone."""
    assert cell.build is not None
    count = sum(len(step.skipped) for step in cell.build.applied if step.transform == cell.technique)
    return f"<br>{count} nodes left alone" if count else ""


def interval(figure: Figure, scale: float, digits: int, unit: str, sign: str = "") -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return f"not measured: {figure.reason}"
    spec = f"{sign}.{digits}f"
    low, high = format(figure.low * scale, spec), format(figure.high * scale, spec)
    return f"{format(figure.value * scale, spec)}{unit} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
