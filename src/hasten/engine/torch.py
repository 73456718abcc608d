"""PyTorch: eager, `torch.compile` and AOTInductor over programs of `torch.export`.

Eager is what most teams run, hence the reference for PyTorch programs. The compilers build C++ at load; that takes tens
of seconds and a compiler. Narrow types go through autocast, so that inputs and outputs stay what the program says.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Absent, Device, Hardware, Probe, Tensors, refuse_knobs
from hasten.engine.host import environment
from hasten.errors import EngineLoadError, EngineRunError, ModelError
from hasten.formats.torch_archive import load_program, open_archive, signature_of
from hasten.spec.profile import Observation
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target

__all__ = ["Torch", "TorchSession"]

# What `forward` is called with: arguments in order, and by name.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
MODES = ("eager", "inductor", "aot")
_AUTOCAST: dict[Precision, str] = {"bf16": "bfloat16", "f16": "float16"}
_PRECISIONS: dict[str, Precision] = {"torch.float32": "f32", "torch.bfloat16": "bf16", "torch.float16": "f16"}
_ARITHMETIC = ("convolution", "mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "scaled_dot_product")
_OTHERS: dict[str, tuple[Hardware, str, str]] = {
    "cuda": ("GPU", "an NVIDIA or AMD GPU", "Install a CUDA or ROCm build of torch on a machine with such a GPU."),
    "mps": ("GPU", "an Apple GPU", "Run on a Mac with Apple silicon."),
    "xpu": ("GPU", "an Intel GPU", "Install the XPU build of torch on a machine with an Intel GPU."),
}


class Torch:
    """The engine."""

    name = "torch"
    formats: frozenset[Format] = frozenset({"torch"})
    honours: frozenset[str] = frozenset({"instances", "flush_denormals"})

    def probe(self) -> Probe:
        """The CPU, and what torch itself says is available."""
        import torch

        features = set(environment().features)
        narrow: tuple[Precision, ...] = ("bf16",) if features & {"avx512_bf16", "amx_bf16", "bf16"} else ()
        cpu = Device(name="CPU", hardware="CPU", detail=environment().processor, precisions=("f32", *narrow))
        found, absent = [cpu], list[Absent]()
        for name, (hardware, what, remedy) in _OTHERS.items():
            if _available(torch, name):
                found.append(
                    Device(
                        name=name.upper(),
                        hardware=hardware,
                        detail=what,
                        precisions=("f32", "f16", "bf16"),
                        support="not run on hardware",
                    )
                )
            else:
                reason = f"torch finds no {name} device, {what}."
                absent.append(Absent(name=name.upper(), hardware=hardware, reason=reason, remedy=remedy))
        return Probe(
            engine=self.name,
            version=importlib.metadata.version("torch"),
            devices=tuple(found),
            absent=tuple(absent),
        )

    def load(self, model: Path, target: Target) -> TorchSession:
        """Load a program. `options={"compile": "inductor" | "aot"}` compiles it; the default is eager."""
        import torch

        refuse_knobs(self, target)
        mode = _mode(target)
        device = target.device.lower()
        if device != "cpu" and not (device in _OTHERS and _available(torch, device)):
            raise EngineLoadError(
                f"torch finds no device {target.device!r} here.", remedy="hasten devices lists what there is."
            )
        if target.precision not in ("f32", "bf16", "f16"):
            raise EngineLoadError(
                f"torch does not turn programs into {target.precision}.", remedy="Choose f32 or bf16."
            )
        torch.set_num_threads(target.threads or environment().cores_physical)
        _set_flushing(target.runtime.flush_denormals)
        return TorchSession(model, target, mode, device)

    def profile(self, model: Path, target: Target, samples: Sequence[Tensors], *, warmup: int) -> Observation:
        """Run eagerly, node by node, under torch's own profiler; see `hasten.engine.torch_profile`.

        Raises `EngineLoadError` for compiled programs, whose kernels do not say which nodes they are made of.
        """
        if _mode(target) != "eager":
            raise EngineLoadError(
                "The kernels of a compiled PyTorch program do not say which of its nodes they compute.",
                remedy="Profile it eagerly: leave the option compile out.",
                code="no_profiler",
            )
        from hasten.engine.torch_profile import observe

        session = self.load(model, target)
        try:
            with session.narrowed():
                return observe(session.program, [session.tensors(sample) for sample in samples], warmup)
        finally:
            session.close()


class TorchSession:
    """A loaded program. Any number of callers may run it at once."""

    def __init__(self, model: Path, target: Target, mode: str, device: str) -> None:
        try:
            archive = open_archive(model)
            self._signature = signature_of(archive)
        except (ModelError, OSError) as error:
            raise EngineLoadError(f"torch cannot load {model.name}: {error}") from error
        self._target = target
        self._device = device
        self._eager: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="hasten-aot-") if mode == "aot" else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = load_program(archive)
                # How forward takes its inputs: in order, by name, in lists: as the program was exported.
                self._how = program.call_spec.in_spec
                self._eager = program.module().to(device)
                self._call: Any = self._compiled(program, mode)
                # Compiled libraries are linked with fast-math start-up code, which silently flushes subnormal numbers
                # in whoever loads them.
                _set_flushing(target.runtime.flush_denormals)
        except EngineLoadError:
            raise
        except Exception as error:
            raise EngineLoadError(
                f"torch refused {model.name}: {_short(error)}",
                remedy="Check the file with: hasten inspect " + model.name,
            ) from error

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the program."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """What most arithmetic operators compute in, watched while one zero input runs eagerly."""
        return _precision_used(self._eager, self._example(), self.narrowed())

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        import torch
        from torch.utils._pytree import tree_leaves

        args, kwargs = self._arranged(self.tensors(inputs))
        try:
            with torch.inference_mode(), self.narrowed(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._call(*args, **kwargs)
                values = tree_leaves(found)
        except Exception as error:
            raise EngineRunError(f"torch failed: {_short(error)}") from error
        return {
            spec.name: _from_runtime(value, spec.dtype)
            for spec, value in zip(self._signature.outputs, values, strict=True)
        }

    @property
    def program(self) -> Any:
        """The program as a module that runs eagerly."""
        return self._eager

    def tensors(self, inputs: Tensors) -> dict[str, Any]:
        """Inputs as tensors on the device, by name. Raises `EngineRunError` where they do not fit."""
        problem = self._signature.problem(inputs)
        if problem:
            raise EngineRunError(f"torch cannot run this: {problem}")
        return self._tensors(inputs)

    def narrowed(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast to the target's precision, where that is narrower than the program's."""
        import torch

        name = _AUTOCAST.get(self._target.precision)
        return torch.autocast(self._device, dtype=getattr(torch, name)) if name else contextlib.nullcontext()

    def close(self) -> None:
        """Drop the program; a compiled library goes with the process."""
        self._eager = self._call = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _compiled(self, program: Any, mode: str) -> Any:
        """What takes tensors and answers."""
        import torch

        if mode == "eager":
            return self._eager
        _require_compiler()
        if mode == "inductor":
            module = torch.compile(self._eager, backend="inductor", dynamic=None)
            with torch.inference_mode(), self.narrowed():
                args, kwargs = self._example()
                module(*args, **kwargs)
            return module
        if self._target.precision != "f32":
            raise EngineLoadError("Ahead of time, programs are compiled as they are.", remedy="Choose f32 or inductor.")
        from torch._inductor import aoti_compile_and_package, aoti_load_package

        assert self._folder is not None
        # The safe copy carries no sample inputs, and the compiler wants some.
        program.example_inputs = self._example()
        package = str(Path(self._folder.name) / "program.pt2")
        return aoti_load_package(aoti_compile_and_package(program, package_path=package))

    def _example(self) -> Arguments:
        """Zeros in the program's own shapes, open dimensions being 2."""
        zeros = {
            spec.name: np.zeros([dim if isinstance(dim, int) else 2 for dim in spec.shape], _numpy(spec.dtype))
            for spec in self._signature.inputs
        }
        return self._arranged(self._tensors(zeros))

    def _tensors(self, inputs: Tensors) -> dict[str, Any]:
        return {
            spec.name: _to_runtime(inputs[spec.name], spec.dtype).to(self._device) for spec in self._signature.inputs
        }

    def _arranged(self, tensors: Mapping[str, Any]) -> Arguments:
        """Tensors as `forward` takes them. The signature has them in the order of its flattened arguments."""
        from torch.utils._pytree import tree_unflatten

        args, kwargs = tree_unflatten([tensors[spec.name] for spec in self._signature.inputs], self._how)
        return tuple(args), dict(kwargs)


def _set_flushing(flushed: bool) -> None:
    """Set what this thread does with subnormal numbers."""
    import torch

    if not torch.set_flush_denormal(flushed) and flushed:
        raise EngineLoadError("This processor cannot flush subnormal numbers.", remedy="Leave flush_denormals off.")


def _mode(target: Target) -> str:
    unknown = sorted(set(target.options) - {"compile"})
    mode = str(target.options.get("compile", "eager"))
    if unknown or mode not in MODES:
        what = f"option {unknown[0]!r}" if unknown else f"mode {mode!r}"
        raise EngineLoadError(f"torch has no {what}.", remedy=f"It takes compile = {' | '.join(MODES)}.")
    return mode


def _available(torch: Any, name: str) -> bool:
    if name == "mps":
        return bool(torch.backends.mps.is_available())
    return bool(getattr(torch, name).is_available())


def _require_compiler() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")):
        raise EngineLoadError(
            "torch.compile builds C++, and there is no compiler here.",
            remedy="Install one, for example: apt-get install g++",
        )


def _precision_used(module: Any, example: Arguments, autocast: contextlib.AbstractContextManager[Any]) -> Precision:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counts: Counter[str] = Counter()

    class Watch(TorchDispatchMode):
        """Counts the element types of arithmetic operators as they run."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(name in func.__name__ for name in _ARITHMETIC):
                kinds = [str(arg.dtype) for arg in args if isinstance(arg, torch.Tensor)]
                counts.update(kinds[-1:])
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), autocast, Watch():
        module(*example[0], **example[1])
    return _PRECISIONS.get(counts.most_common(1)[0][0], "f32") if counts else "f32"


def _numpy(dtype: str) -> str:
    from hasten.spec.tensor import NUMPY_NAMES

    return NUMPY_NAMES[dtype]  # pyright: ignore[reportArgumentType]


def _to_runtime(array: np.ndarray[Any, Any], dtype: str) -> Any:
    """BF16 travels as its raw bits. Frames are read-only views; torch wants to own what it is given."""
    import torch

    tensor = torch.from_numpy(np.array(array))
    return tensor.view(torch.bfloat16) if dtype == "BF16" else tensor


def _from_runtime(value: Any, dtype: str) -> np.ndarray[Any, Any]:
    import torch

    plain = value.detach().cpu().contiguous()
    if dtype == "BF16":
        return plain.to(torch.bfloat16).view(torch.uint16).numpy().copy()
    if plain.dtype in (torch.bfloat16, torch.float16) and dtype not in ("FP16",):
        plain = plain.float()
    return np.array(plain.numpy())


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
