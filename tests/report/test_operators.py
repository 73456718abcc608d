"""Time of operators before and after: joined by what they do, honest about engines that tell nothing."""

from __future__ import annotations

import msgspec
import pytest

from hasten.report import render
from hasten.report.operators import Operators, operators_of, work_of
from hasten.spec.evidence import OperatorTimes, Record
from hasten.spec.measurement import unmeasured


def shown(record: Record) -> Operators:
    found = operators_of(record)
    assert found is not None
    return found


def test_types_of_two_engines_meet_where_they_do_the_same_work(full: Record) -> None:
    rows = {row.work: [bar.kinds for bar in row.bars] for row in shown(full).rows}
    assert list(rows) == ["convolution", "matrix products", "other", "laying out data"]
    assert rows["convolution"] == ["Conv × 36", "Convolution × 36"]
    assert rows["matrix products"] == ["MatMul × 4", "FullyConnected × 4"]


def test_all_bars_share_one_scale_and_say_their_time(full: Record) -> None:
    convolution, products, *_, layout = shown(full).rows
    assert [(bar.percent, bar.text) for bar in convolution.bars] == [(100.0, "12.0 ms"), (16.58, "1.99 ms")]
    assert [bar.text for bar in products.bars] == ["1.90 ms", "3.00 ms"]
    assert [bar.text for bar in layout.bars] == ["none", "10.0 µs"]


def test_each_type_stands_in_its_engines_words_with_interval_and_share(full: Record) -> None:
    before, after = shown(full).sides
    assert (before.title, before.role) == ("reference, onnxruntime f32", "reference")
    assert after.role == "picked"
    assert [(row.kind, row.count, row.time.full, row.share) for row in before.rows[:2]] == [
        ("Conv", "36", "12.0 ms (11.4 – 12.6)", "85.7 %"),
        ("MatMul", "4", "1.90 ms (1.80 – 2.00)", "13.6 %"),
    ]


def test_an_engine_without_a_profiler_leaves_its_reason_and_the_other_side(full: Record) -> None:
    reason = "litert has no profiler."
    without = OperatorTimes(variant=full.picked, total_us=unmeasured(reason), reason=reason)
    record = msgspec.structs.replace(full, operators=(full.operators[0], without))
    assert [side.role for side in shown(record).drawn] == ["reference"]
    assert reason in render(record, title="m")


def test_a_record_that_never_asked_has_no_such_section(accepted: Record) -> None:
    assert operators_of(accepted) is None
    assert "Where the time goes" not in render(accepted, title="m")


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("QLinearConv", "convolution"),
        ("aten.convolution.default", "convolution"),
        ("Convert", "laying out data"),
        ("FusedMatMul", "matrix products"),
        ("aten.addmm.default", "matrix products"),
        ("aten.linear.default", "matrix products"),
        ("ScaledDotProductAttention", "attention"),
        ("SkipLayerNormalization", "normalization"),
        ("DequantizeLinear", "quantizing"),
        ("DynamicQuantizeMatMul", "matrix products"),
        ("GlobalAveragePool", "pooling and reductions"),
        ("aten.add.Tensor", "elementwise"),
        ("ReorderInput", "laying out data"),
        ("Whatever", "other"),
    ],
)
def test_a_type_is_known_by_its_name(kind: str, work: str) -> None:
    assert work_of(kind) == work


def test_the_name_of_a_type_is_text_and_never_markup(full: Record) -> None:
    before = full.operators[0]
    hostile = msgspec.structs.replace(before.kinds[0], kind='<script>alert(1)</script>"')
    record = msgspec.structs.replace(full, operators=(msgspec.structs.replace(before, kinds=(hostile,)),))
    assert "<script" not in render(record, title="m")
