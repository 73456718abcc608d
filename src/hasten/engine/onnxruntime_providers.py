"""The execution providers of ONNX Runtime: what each reaches, which build brings it, and how its precision is pinned.

One table, read by the engine (`load`), by `hasten devices` (`probe`) and by docs/hardware.md. Only the CPU provider has
run on its hardware here; the options of the others are those that ONNX Runtime documents for them. A provider that is
in the build is not yet a device: a tiny session on it decides, because the CUDA build lists CUDA on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hasten.engine.base import Absent, Device, Hardware
from hasten.spec.target import Precision

__all__ = ["PROVIDERS", "Provider", "available", "probe_provider", "provider_for"]

Options = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """One execution provider.

    `precisions` gives for each precision the options that pin it. `compiles` says that it turns subgraphs into
    programs of its own, whose arithmetic follows its options and cannot be read from a graph; without it the element
    types of the graph decide. `wants` are knobs of the session that it insists on.
    """

    device: str
    name: str
    hardware: Hardware
    what: str
    remedy: str
    precisions: dict[Precision, Options]
    compiles: bool = False
    options: Options = field(default_factory=dict[str, str])
    memory_pattern: bool = True


def _swap(package: str, where: str) -> str:
    """All builds share one module, so that one replaces the other."""
    return f"On {where}, in place of onnxruntime: pip install {package}."


def _build(flag: str, where: str) -> str:
    return f"On {where}, build ONNX Runtime from source with {flag}; no package carries it."


_GRAPH: dict[Precision, Options] = {"f32": {}, "f16": {}}

PROVIDERS: tuple[Provider, ...] = (
    Provider(
        device="CPU",
        name="CPUExecutionProvider",
        hardware="CPU",
        what="the processor",
        remedy="pip install onnxruntime",
        # bf16 kernels exist in this runtime only on Arm; f16 is computed as f32 on x86.
        precisions={"f32": {}, "int8": {}, "int4": {}},
    ),
    Provider(
        device="XNNPACK",
        name="XnnpackExecutionProvider",
        hardware="CPU",
        what="the processor, by XNNPACK kernels",
        remedy=_build("--use_xnnpack", "the device"),
        precisions={"f32": {}, "int8": {}},
    ),
    Provider(
        device="OPENVINO",
        name="OpenVINOExecutionProvider",
        hardware="CPU",
        what="an Intel processor, by OpenVINO",
        remedy=_swap("onnxruntime-openvino", "a machine with an Intel processor"),
        precisions={"f32": {"precision": "FP32"}, "f16": {"precision": "FP16"}},
        options={"device_type": "CPU"},
        compiles=True,
    ),
    Provider(
        device="CUDA",
        name="CUDAExecutionProvider",
        hardware="GPU",
        what="an NVIDIA GPU",
        remedy=_swap("onnxruntime-gpu", "a machine with an NVIDIA GPU"),
        # TF32 keeps 10 bits of a mantissa of 23: fast, and not f32.
        precisions={"f32": {"use_tf32": "0"}, "f16": {"use_tf32": "0"}},
    ),
    Provider(
        device="TENSORRT",
        name="TensorrtExecutionProvider",
        hardware="GPU",
        what="an NVIDIA GPU, by TensorRT",
        remedy=_swap("onnxruntime-gpu tensorrt", "a machine with an NVIDIA GPU"),
        # f32 is not offered: the provider has no switch that keeps TensorRT from TF32.
        precisions={"f16": {"trt_fp16_enable": "1"}, "int8": {"trt_int8_enable": "1"}},
        compiles=True,
    ),
    Provider(
        device="MIGRAPHX",
        name="MIGraphXExecutionProvider",
        hardware="GPU",
        what="an AMD GPU, by MIGraphX",
        remedy=_swap("onnxruntime-migraphx", "a machine with an AMD GPU and ROCm"),
        precisions={"f32": {}, "f16": {"migraphx_fp16_enable": "1"}},
        compiles=True,
    ),
    Provider(
        device="ROCM",
        name="ROCMExecutionProvider",
        hardware="GPU",
        what="an AMD GPU, by ROCm (ONNX Runtime up to 1.22)",
        remedy=_swap("onnxruntime-rocm", "a machine with an AMD GPU and ROCm") + " Newer: MIGRAPHX.",
        precisions=_GRAPH,
    ),
    Provider(
        device="DIRECTML",
        name="DmlExecutionProvider",
        hardware="GPU",
        what="a DirectX 12 GPU under Windows",
        remedy=_swap("onnxruntime-directml", "Windows"),
        precisions=_GRAPH,
        memory_pattern=False,
    ),
    Provider(
        device="WEBGPU",
        name="WebGpuExecutionProvider",
        hardware="GPU",
        what="a GPU, by Vulkan, Metal or DirectX 12",
        remedy=_swap("onnxruntime-webgpu", "a machine with a GPU and its driver"),
        precisions=_GRAPH,
    ),
    Provider(
        device="COREML",
        name="CoreMLExecutionProvider",
        hardware="NPU",
        what="the Neural Engine and GPU of Apple silicon",
        remedy="On a Mac: pip install onnxruntime.",
        # The Neural Engine computes in f16 only; f32 stays f32 on the processor alone.
        precisions={"f16": {"MLComputeUnits": "ALL"}, "f32": {"MLComputeUnits": "CPUOnly"}},
        options={"ModelFormat": "MLProgram"},
        compiles=True,
    ),
    Provider(
        device="QNN",
        name="QNNExecutionProvider",
        hardware="NPU",
        what="the Hexagon NPU of Qualcomm Snapdragon",
        remedy=_swap("'onnxruntime-qnn<2'", "a machine with a Snapdragon X or 8-series processor"),
        precisions={"int8": {}, "f16": {"enable_htp_fp16_precision": "1"}},
        options={"backend_type": "htp"},
        compiles=True,
    ),
    Provider(
        device="VITISAI",
        name="VitisAIExecutionProvider",
        hardware="NPU",
        what="the NPU of AMD Ryzen AI, or an AMD adaptive SoC",
        remedy="On such a machine, install AMD's Ryzen AI or Vitis AI software, which brings its own onnxruntime.",
        precisions={"int8": {}},
        compiles=True,
    ),
    Provider(
        device="CANN",
        name="CANNExecutionProvider",
        hardware="NPU",
        what="a Huawei Ascend NPU",
        remedy=_swap("onnxruntime-cann", "a machine with an Ascend NPU and CANN"),
        precisions={
            "f32": {"precision_mode": "must_keep_origin_dtype"},
            "f16": {"precision_mode": "force_fp16"},
        },
        compiles=True,
    ),
    Provider(
        device="NNAPI",
        name="NnapiExecutionProvider",
        hardware="edge",
        what="accelerators of Android devices",
        remedy=_build("--use_nnapi", "Android"),
        precisions={"f32": {}, "int8": {}},
        compiles=True,
    ),
)


def provider_for(device: str) -> Provider | None:
    """Return the row of a device name, if there is one."""
    return next((row for row in PROVIDERS if row.device == device), None)


def available(row: Provider) -> str | None:
    """Say why this build does not carry the provider, or return None."""
    import onnxruntime as ort

    if row.name in ort.get_available_providers():
        return None
    return f"The onnxruntime that is installed ({ort.__version__}) is built without {row.name}."


def probe_provider(row: Provider, detail: str) -> Device | Absent:
    """Decide by a tiny session whether the device is there. `detail` describes the CPU, which needs no session."""
    support = "runs here" if row.device == "CPU" else "not run on hardware"
    problem = None if row.device == "CPU" else available(row) or _refusal(row)
    if problem:
        return Absent(name=row.device, hardware=row.hardware, reason=problem, remedy=row.remedy, support=support)
    return Device(
        name=row.device,
        hardware=row.hardware,
        detail=detail if row.device == "CPU" else row.what,
        precisions=tuple(row.precisions),
        support=support,
    )


def _refusal(row: Provider) -> str | None:
    """Open a session on the provider and see whether it is really used."""
    import onnxruntime as ort

    options: Any = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_mem_pattern = row.memory_pattern
    try:
        session = ort.InferenceSession(
            _tiny_model(), options, providers=[(row.name, row.options)], enable_fallback=False
        )
    except Exception as error:
        return f"{row.name} does not start here: {' '.join(str(error).split())[:200]}"
    if row.name not in session.get_providers():
        return f"{row.name} is in this build and found no device."
    return None


def _tiny_model() -> bytes:
    """y = x · x, in f32."""
    from onnx import helper

    kind = 1  # TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [2, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "tiny", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
