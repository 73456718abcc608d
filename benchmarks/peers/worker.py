"""hasten's worker process with one more engine: OpenVINO exactly as it comes.

hasten's own engine pins precision, hint and threads, which is its merit and not the default that peers are to have. Run
as a script by `hasten.engine.isolate` (`command`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hasten.engine import worker
from hasten.engine.base import Probe
from hasten.engine.openvino import OpenVinoSession
from hasten.errors import EngineLoadError
from hasten.registry import Entry, Registry
from hasten.spec.target import Format, Target

__all__ = ["COMMAND", "OpenVinoDefault"]

COMMAND = (str(Path(__file__).resolve()),)


class OpenVinoDefault:
    """`compile_model(model, "CPU")`. Only how many threads and streams there are is said."""

    name = "openvino-default"
    formats: frozenset[Format] = frozenset({"onnx", "tflite", "openvino"})
    honours: frozenset[str] = frozenset({"instances"})

    def probe(self) -> Probe:
        """Nobody plans with this engine."""
        return Probe(engine=self.name, reason="for the benchmark only")

    def load(self, model: Path, target: Target) -> OpenVinoSession:
        """Read and compile."""
        import openvino as ov

        count = target.runtime.instances
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": target.threads * count}
        if count > 1:
            settings["NUM_STREAMS"] = count
        try:
            return OpenVinoSession(ov.Core().compile_model(str(model), "CPU", settings), target)
        except Exception as error:
            raise EngineLoadError(f"openvino refused {model.name}: {' '.join(str(error).split())[:300]}") from error


if __name__ == "__main__":
    worker.engines = Registry("engine", [Entry(name="openvino-default", target="__main__:OpenVinoDefault")])
    worker.main()
