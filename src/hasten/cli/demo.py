"""`hasten demo`: the main job end to end on a real model, from download to a served, checked answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from hasten.cli.progress import progress
from hasten.cli.seam import emit, say, verb
from hasten.errors import HastenError, MissingError

__all__ = ["command"]

MODEL = "ppocr-rec"
BUDGET_S = 180.0
SLO = """\
[slo]
accuracy_drop_max = 0.01     # exact match may fall by one point at the most, proven on holdout data
[objective]
minimize = "latency_p50_ms"
"""


@click.command(name="demo")
@click.option("--out", default="demo", show_default=True, type=click.Path(), help="Folder for everything it makes.")
@verb("demo")
def command(out: str, as_json: bool) -> int:
    """Optimize a text recogniser, prove it, pack it, verify it, serve it, and check the served answers."""
    from hasten.cli.documents import optimize_document
    from hasten.facade import open_bundle, optimize

    _require_client()
    folder = Path(out)
    bundle = folder / f"{MODEL}.bundle"
    slo = folder / "slo.toml"
    folder.mkdir(parents=True, exist_ok=True)
    slo.write_text(SLO)
    with progress(quiet=as_json) as listener:
        result = optimize(
            f"zoo:{MODEL}", slo=slo, out=bundle, overwrite=bundle.exists(), budget_s=BUDGET_S, listener=listener
        )
    if result.bundle is None:
        say(result.summary)
        return 1
    handle = open_bundle(result.bundle)
    problems = handle.problems()
    if problems:
        raise HastenError(f"The bundle does not verify: {problems[0]}", code="verification")
    served = _serve_and_check(handle)
    if as_json:
        emit("demo", {**optimize_document(result.record, str(bundle), str(result.report)), "served": served})
        return 0
    click.echo(f"\n{result.verdict}: {result.summary}")
    click.echo(
        f"served:  {served['requests']} requests over HTTP by tritonclient, p50 {served['latency_p50_ms']:.1f} ms, "
        f"largest difference from the golden outputs {served['largest_difference']:.2g}"
    )
    click.echo(f"bundle:  {bundle}   (hasten verify {bundle}; hasten serve {bundle})")
    click.echo(f"report:  {result.report}")
    return 0


def _require_client() -> None:
    import importlib.util

    if importlib.util.find_spec("tritonclient") is None:
        raise MissingError(
            "The demo checks the server with an independent client, tritonclient, which is not installed.",
            remedy="Install it with: pip install 'hasten[demo]'",
        )


def _serve_and_check(handle: Any, requests: int = 50) -> dict[str, Any]:
    """Serve on loopback, send golden inputs as binary tensors, compare with golden outputs, stop."""
    import numpy as np

    golden = handle.bundle.golden(handle.manifest.picked)
    tolerance = handle.bundle.entry(handle.manifest.picked).tolerance
    times: list[float] = []
    largest = 0.0
    with handle.serve() as server, _client(server.url) as client:
        for number in range(requests):
            index = number % len(golden.inputs)
            started = time.perf_counter()
            outputs = _infer(client, handle.manifest, golden.inputs[index])
            times.append((time.perf_counter() - started) * 1e3)
            for name, wanted in golden.outputs[index].items():
                difference = float(np.abs(outputs[name].astype(np.float64) - wanted).max(initial=0.0))
                if difference > tolerance[name]:
                    raise HastenError(
                        f"The served output {name!r} differs from its golden output.", code="verification"
                    )
                largest = max(largest, difference)
    return {"requests": requests, "latency_p50_ms": float(np.median(times)), "largest_difference": largest}


def _client(url: str) -> Any:
    from tritonclient.http import InferenceServerClient

    return InferenceServerClient(url.removeprefix("http://"))


def _infer(client: Any, manifest: Any, inputs: Any) -> dict[str, Any]:
    from tritonclient.http import InferInput

    tensors: list[Any] = []
    for spec in manifest.signature.inputs:
        tensor = InferInput(spec.name, list(inputs[spec.name].shape), spec.dtype)
        tensor.set_data_from_numpy(inputs[spec.name], binary_data=True)
        tensors.append(tensor)
    result = client.infer(manifest.name, tensors)
    return {spec.name: result.as_numpy(spec.name) for spec in manifest.signature.outputs}
