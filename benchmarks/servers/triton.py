"""A real tritonserver, out of the wheel of nvidia-pytriton, for judges only: nothing of hasten needs it.

The wheel (55 MB, from the package index, by pip) and what is unpacked from it stay in work/triton. tritonserver's
Python backend embeds the interpreter that comes first on the path and ignores PYTHONPATH; it needs numpy 1, so that it
gets an environment of its own. With numpy 2 it answers every request with empty outputs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from os import environ, pathsep
from pathlib import Path

from servers.apart import WORK, environment
from servers.identity import Identity, write_triton
from servers.process import Server, free_ports, launched

VERSION, NUMPY = "0.7.0", "1.26.4"
TRITON_VERSION = "2.51.0"
HOME = WORK / "triton"


def install() -> Path:
    """Return the folder that holds tritonserver, made ready on the first call."""
    unpacked = HOME / "unpacked"
    if not (unpacked / ".ready").exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", str(HOME / "wheel"), f"nvidia-pytriton=={VERSION}"], check=True)
        [wheel] = (HOME / "wheel").glob(f"nvidia_pytriton-{VERSION}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        _complete(unpacked / "pytriton" / "tritonserver")
        (unpacked / ".ready").touch()
    return unpacked


def _complete(server: Path) -> None:
    """Put the stub of this Python's version where the backend looks, and let both programs run."""
    backend = server / "backends" / "python"
    stub = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not stub.is_dir():
        sys.exit(f"The wheel holds no Python backend for Python {sys.version.split()[0]}; it does for 3.8 to 3.13.")
    shutil.copy2(stub / "triton_python_backend_stub", backend)
    for program in (server / "bin" / "tritonserver", backend / "triton_python_backend_stub"):
        program.chmod(0o755)


@contextmanager
def running(models: Sequence[Identity], work: Path, *, core: int | None = None) -> Generator[Server]:
    """Serve identity models over HTTP and gRPC."""
    repository = work / "triton-models"
    for model in models:
        write_triton(model, repository)
    with serving(repository, environment("triton-python", f"numpy=={NUMPY}"), work, core=core) as started:
        yield started


@contextmanager
def serving(repository: Path, python: Path, work: Path, *, core: int | None = None) -> Generator[Server]:
    """Serve a repository of models for the Python backend, whose interpreter is that of `python`'s environment."""
    unpacked = install()
    server = unpacked / "pytriton" / "tritonserver"
    http, grpc = free_ports(2)
    options = {
        "backend-directory": server / "backends",
        "model-repository": repository,
        "http-address": "127.0.0.1",
        "http-port": http,
        "grpc-address": "127.0.0.1",
        "grpc-port": grpc,
        "allow-metrics": "false",
        "allow-gpu-metrics": "false",
    }
    libraries = [str(unpacked / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    with launched(
        "triton",
        [str(server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())],
        http=http,
        grpc=grpc,
        core=core,
        environment={
            "LD_LIBRARY_PATH": pathsep.join(libraries),
            "PATH": pathsep.join([str(python.parent), environ["PATH"]]),
        },
        log=work / "triton.log",
    ) as started:
        yield started
