"""One burst of load on one server: wrk for HTTP, h2load for gRPC, on a core of their own. A refusal ends the run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hasten.stats.percentiles import percentile

__all__ = ["Burst", "GrpcLoad", "HttpLoad", "milliseconds", "require_tools"]

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst found: requests per second, latency in ms, and processor time of the server for each in us."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0


@dataclass(frozen=True, slots=True)
class HttpLoad:
    """The same POST again and again over `connections`."""

    path: str
    body: bytes
    headers: dict[str, str]
    connections: int

    def run(self, port: int, seconds: float, core: int, folder: Path) -> tuple[Burst, int]:
        """Return what was found, and how many requests were answered."""
        body, script = folder / "body", folder / "post.lua"
        body.write_bytes(self.body)
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in self.headers.items()]
        script.write_text("\n".join(['wrk.method = "POST"', f'wrk.body = io.open("{body}", "rb"):read("*a")', *lines]))
        command = [
            "taskset",
            "-c",
            str(core),
            "wrk",
            "-t1",
            f"-c{self.connections}",
            f"-d{seconds:g}s",
            "--timeout=20s",
        ]
        url = f"http://127.0.0.1:{port}{self.path}"
        return read_wrk(_run([*command, "--latency", "-s", str(script), url]))


def read_wrk(words: str) -> tuple[Burst, int]:
    """What wrk tells. Exits where any answer was not 2xx or any connection broke."""
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", words), re.search(r"(\d+) requests in", words)
    p50, p99 = (re.search(rf"^\s+{share}%\s+(\S+)", words, re.MULTILINE) for share in (50, 99))
    if not (rate and count and p50 and p99) or "Non-2xx" in words or "Socket errors" in words:
        sys.exit(f"A burst of HTTP failed:\n{words}")
    return Burst(float(rate[1]), milliseconds(p50[1]), milliseconds(p99[1])), int(count[1])


@dataclass(slots=True)
class GrpcLoad:
    """The same framed message to one method again and again, a call at a time over each of `connections`.

    A burst is a number of calls, as many as the `rate` of the one before makes in its time: h2load ends a burst by the
    clock in the middle of calls, and tritonserver 2.51 now and then dies of that (signal 11).
    """

    method: str
    frame: bytes
    connections: int
    rate: float = 200.0

    def run(self, port: int, seconds: float, core: int, folder: Path) -> tuple[Burst, int]:
        """Return what was found, and how many calls were answered."""
        body, log = folder / "frame", folder / "h2load.log"
        body.write_bytes(self.frame)
        log.unlink(missing_ok=True)
        each = max(1, round(self.rate * seconds / self.connections))
        count = ["-t1", "-m1", f"-c{self.connections}", f"-n{each * self.connections}"]
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        url = f"http://127.0.0.1:{port}{self.method}"
        command = ["taskset", "-c", str(core), "h2load", *count, f"--log-file={log}", "-d", str(body), *headers, url]
        found, answered = read_h2load(_run(command), log.read_text())
        self.rate = found.rate
        return found, answered


def read_h2load(words: str, log: str) -> tuple[Burst, int]:
    """What h2load tells, and its log of single requests: start, status and duration in us, by tabs."""
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", words)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", words)
    if not (rate and done) or (done[2], done[3]) != ("0", "0"):
        sys.exit(f"A burst of gRPC failed:\n{words}")
    times = [int(line.split("\t")[2]) / 1e3 for line in log.splitlines()]
    p50, p99 = (percentile(times, share).value for share in (50, 99))
    return Burst(float(rate[1]), p50 or float("nan"), p99 or float("nan")), int(done[1])


def milliseconds(words: str) -> float:
    """A duration as wrk writes it: 1.20ms, 950.00us, 1.01s."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", words)
    assert match is not None, words
    return float(match[1]) * UNITS[match[2]]


def require_tools() -> None:
    """Exit with what to type where a tool is missing."""
    for tool, package in (("wrk", "wrk"), ("h2load", "nghttp2-client"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: install it with: apt-get update && apt-get install -y {package}")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        sys.exit(f"{command[3]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
