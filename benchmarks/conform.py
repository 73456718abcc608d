"""Does hasten answer as a real tritonserver does? The same probes to both. Writes docs/conformance.md.

One command: make conformance. The first run fetches tritonserver (55 MB) and KServe's package. Both serve the same
identity models on loopback; each probe is sent to both, and what comes back is put in words and compared. KServe's
clients, in an environment of their own, ask both too. Exit status 1 for any difference that
`conformance/differences.toml` does not list with its reason, and for any row there that is out of date.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc

from conformance.ask import ask_grpc, ask_http
from conformance.compare import compare, read_differences
from conformance.grpc_probes import grpc_probes
from conformance.http_probes import http_probes
from conformance.page import page
from conformance.probe import HttpProbe, Outcome
from servers import hasten, triton
from servers.apart import environment
from servers.identity import KINDS, TINY, write_bundle
from servers.process import Server

KSERVE = "0.21.0"
PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"
MODELS = (TINY, KINDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument(
        "--source", type=Path, default=hasten.SOURCE, help="the tree that answers, such as build/native"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bundles = [write_bundle(model, work / model.name) for model in MODELS]
        with triton.running(MODELS, work) as theirs, hasten.running(bundles, work, source=given.source) as ours:
            found = compare(outcomes(ours), outcomes(theirs), read_differences())
    given.out.write_text(page(found, triton.TRITON_VERSION))
    problems = [one for one in found if one.problem]
    for one in problems:
        print(f"{one.probe}: {one.problem}\n  hasten: {one.ours}\n  triton: {one.theirs}")
    same = sum(one.same and not one.problem for one in found)
    print(f"{len(found)} probes: {same} answered alike, {len(found) - same - len(problems)} differ as reviewed, "
          f"{len(problems)} problems")  # fmt: skip
    return 1 if problems else 0


def outcomes(server: Server) -> dict[str, Outcome]:
    """What a server does with every probe, by name."""
    told: dict[str, Outcome] = {}
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        for probe in (*http_probes(), *grpc_probes()):
            assert probe.name not in told, f"two probes are called {probe.name!r}"
            told[probe.name] = (
                ask_http(probe, server.http) if isinstance(probe, HttpProbe) else ask_grpc(probe, channel)
            )
    return told | kserve_outcomes(server)


def kserve_outcomes(server: Server) -> dict[str, Outcome]:
    """What KServe's clients make of a server."""
    script = Path(__file__).parent / "conformance" / "kserve_client.py"
    command = [environment("kserve", f"kserve=={KSERVE}"), script, str(server.http), str(server.grpc)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=120
    )
    return {name: Outcome(*said) for name, said in json.loads(done.stdout.splitlines()[-1]).items()}


if __name__ == "__main__":
    sys.exit(main())
