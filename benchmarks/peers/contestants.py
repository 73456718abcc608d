"""Who takes part: each peer as its own users would set it up, on two threads.

A peer is how its model is made (`make`, see `make.py` and `olive.py`; empty takes the model as it was trained) and the
target that it runs on. `own` targets load through the benchmark's worker, because hasten's engines pin what the tool
leaves open. `settings` is said on the page, so that anybody can do the same.
"""

from __future__ import annotations

from hasten.spec.target import Precision, Runtime, Target
from hasten.spec.values import Value
from peers.subjects import Subject

__all__ = ["HASTEN", "PEERS", "THREADS", "Peer", "obstacle", "reference_of", "shared"]

THREADS = 2
HASTEN = "hasten"


class Peer(Value, frozen=True):
    """One contestant that is not hasten."""

    id: str
    label: str
    settings: str
    formats: tuple[str, ...]
    target: Target
    make: str = ""
    own: bool = False
    text_only: bool = False


def _plain(engine: str, precision: Precision = "f32", **options: str) -> Target:
    return Target(engine=engine, precision=precision, threads=THREADS, options={**options})


_BOTH = ("onnx", "tflite")
PEERS: tuple[Peer, ...] = (
    Peer(
        id="onnxruntime",
        label="onnxruntime f32",
        settings="`InferenceSession` with its defaults: all graph optimizations, one thread a core, pinned",
        formats=("onnx",),
        target=_plain("onnxruntime"),
    ),
    Peer(
        id="litert",
        label="litert",
        settings="`Interpreter(num_threads=2)`: XNNPACK, its default",
        formats=("tflite",),
        target=_plain("litert"),
    ),
    Peer(
        id="onnxruntime-static",
        label="onnxruntime int8 static",
        settings="`quant_pre_process`, then `quantize_static(model, out, reader)`: QDQ, MinMax, signed 8 bits",
        formats=("onnx",),
        target=_plain("onnxruntime", "int8"),
        make="ort-static",
    ),
    Peer(
        id="onnxruntime-dynamic",
        label="onnxruntime int8 dynamic",
        settings="`quantize_dynamic(model, out)`",
        formats=("onnx",),
        target=_plain("onnxruntime", "int8"),
        make="ort-dynamic",
        text_only=True,
    ),
    Peer(
        id="openvino",
        label="OpenVINO default",
        settings='`compile_model(model, "CPU")`, no hint but the number of threads',
        formats=_BOTH,
        target=_plain("openvino-default"),
        own=True,
    ),
    Peer(
        id="openvino-f32",
        label="OpenVINO f32",
        settings="`INFERENCE_PRECISION_HINT` f32, `PERFORMANCE_HINT` LATENCY, pinned threads",
        formats=_BOTH,
        target=_plain("openvino"),
    ),
    Peer(
        id="openvino-nncf",
        label="OpenVINO + NNCF int8",
        settings="`nncf.quantize(model, dataset)`, `save_model(model, out)`, run as OpenVINO default",
        formats=_BOTH,
        target=_plain("openvino-default", "int8"),
        make="nncf",
        own=True,
    ),
    Peer(
        id="openvino-nncf-transformer",
        label="OpenVINO + NNCF int8, transformer",
        settings="the same with `model_type=TRANSFORMER`, as NNCF's guide advises for such models",
        formats=("onnx",),
        target=_plain("openvino-default", "int8"),
        make="nncf-transformer",
        own=True,
        text_only=True,
    ),
    Peer(
        id="torch-compile",
        label="torch.compile",
        settings="`torch.compile(module)` with its defaults (inductor), `inference_mode`",
        formats=("onnx",),
        target=_plain("torch", compile="inductor"),
        make="torch",
    ),
    Peer(
        id="olive",
        label="Olive f32",
        settings="`olive optimize --provider CPUExecutionProvider --device cpu --precision fp32`",
        formats=("onnx",),
        target=_plain("onnxruntime"),
        make="olive-fp32",
    ),
    Peer(
        id="olive-int8",
        label="Olive int8",
        settings="`olive run` with what `olive optimize --precision int8` plans, calibrated on our samples on the CPU",
        formats=("onnx",),
        target=_plain("onnxruntime", "int8"),
        make="olive-int8",
    ),
)


def obstacle(peer: Peer, subject: Subject) -> str:
    """Why a peer cannot take part in the race on this model; empty where it can."""
    format_ = subject.model.format
    if format_ not in peer.formats:
        return "does not take TFLite" if format_ == "tflite" else "takes TFLite only"
    if peer.text_only and not subject.text:
        return "for text models"
    if peer.make == "torch" and not subject.text:
        return "no torch model"
    return ""


def reference_of(subject: Subject) -> str:
    """The peer that all ratios are against: the usual engine of the model's format."""
    return "litert" if subject.model.format == "tflite" else "onnxruntime"


def shared(target: Target) -> Target:
    """The target as two instances of one thread, for throughput."""
    return Target(
        engine=target.engine,
        device=target.device,
        precision=target.precision,
        threads=1,
        pin=target.pin,
        runtime=_two(target.runtime),
        options=target.options,
    )


def _two(runtime: Runtime) -> Runtime:
    import msgspec

    return msgspec.structs.replace(runtime, instances=THREADS)
