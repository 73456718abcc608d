"""`hasten optimize`: the main job."""

from __future__ import annotations

import re

import click

from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb
from hasten.errors import UsageError

__all__ = ["command", "seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@click.command(name="optimize")
@click.argument("model")
@click.option("--data", help="Folder of .npz, an .npz, zoo:NAME or module:function; a zoo model brings its own.")
@click.option("--slo", type=click.Path(), help="slo.toml with the objectives.")
@click.option("--out", required=True, type=click.Path(), help="The bundle folder to write.")
@click.option("--metric", help="Built-in name or module:attribute; the data's own by default.")
@click.option("--name", help="The model's name when it is served; the file's by default.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws orders of measuring, and arrivals."
)
@click.option(
    "--split-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Deals the samples into splits: other data to choose by and to claim on.",
)
@click.option("--budget", default="10m", show_default=True, help="Time to spend, such as 90s, 10m or 1h.")
@click.option(
    "--fold-preprocess", is_flag=True, help="Move the data's preprocessing into the graph: clients send pixels."
)
@click.option(
    "--rehearse/--no-rehearse", default=True, show_default=True, help="Try the real server with what was picked."
)
@click.option("--exhaustive", is_flag=True, help="Try every candidate in full, however long it takes.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run; finished trials are used again.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle at --out.")
@verb("optimize")
def command(
    model: str,
    data: str | None,
    slo: str | None,
    out: str,
    metric: str | None,
    name: str | None,
    seed: int,
    split_seed: int,
    budget: str,
    fold_preprocess: bool,
    rehearse: bool,
    exhaustive: bool,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Find the fastest deployment of MODEL that meets the objectives, prove it, and write a bundle.

    MODEL is a file (ONNX, TFLite, OpenVINO, PyTorch program), zoo:NAME, or module:function that gives a PyTorch module.
    """
    from hasten.cli.documents import optimize_document
    from hasten.facade import optimize
    from hasten.optimize.deploy import deployment_line

    with progress(quiet=as_json) as listener:
        result = optimize(
            model,
            data=data,
            slo=slo,
            out=out,
            metric=metric,
            name=name,
            seed=seed,
            split_seed=split_seed,
            budget_s=seconds(budget),
            fold_preprocess=fold_preprocess,
            rehearse=rehearse,
            exhaustive=exhaustive,
            resume=resume,
            overwrite=overwrite,
            listener=listener,
        )
    bundle = str(result.bundle) if result.bundle else None
    if as_json:
        emit("optimize", optimize_document(result.record, bundle, str(result.report)))
    else:
        click.echo(f"{result.verdict}: {result.summary}")
        for deployment in result.record.deployments:
            click.echo(f"serving: {deployment_line(deployment)}")
        click.echo(f"bundle: {bundle or 'none'}\nreport: {result.report}")
    return 1 if result.verdict == "infeasible" else 0


def seconds(text: str) -> float:
    """Read a time such as 90s, 10m or 1h. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is no time.", remedy="Write, for example, 90s, 10m or 1h.")
    return float(match[1]) * _UNITS[match[2] or "s"]
