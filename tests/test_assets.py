"""Fetching, from a registry made up here: nothing below touches the network."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from sari_jax import assets
from sari_jax.errors import InputError

SOUND = b"sound" * 1000


def wheel(path: Path, content: bytes = SOUND) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("package/sounds/bell.wav"), content)
        archive.writestr(zipfile.ZipInfo("package/sounds/deep/gong.wav"), content)
        archive.writestr(zipfile.ZipInfo("package/code.py"), b"never unpacked")
    return path


class Registry:
    """Stands in for assets.download."""

    def __init__(self, archive: Path):
        self.archive, self.asked = archive, 0

    def __call__(self, asset: assets.Asset, folder: Path) -> Path:
        self.asked += 1
        return Path(shutil.copy(self.archive, folder))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SARI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def registry(tmp_path, cache, monkeypatch):
    archive = wheel(tmp_path / "package-1.0-py3-none-any.whl")
    asset = assets.Asset("pypi", "package", "1.0", digest(archive), ("package/sounds/",), "CC0-1.0")
    monkeypatch.setattr(assets, "ASSETS", {"bells": asset})
    registry = Registry(archive)
    monkeypatch.setattr(assets, "download", registry)
    return registry


def visible(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".lock"
    )


def visible_under(folder: Path, cache: Path) -> list[str]:
    return [f"{folder.relative_to(cache)}/{name}" for name in visible(folder)]


def test_only_the_members_are_unpacked_and_only_once(registry, cache):
    folder = assets.fetch("bells")
    assert visible(folder) == ["bell.wav", "deep/gong.wav"]
    assert (folder / "bell.wav").read_bytes() == SOUND
    assert assets.fetch("bells") == folder
    assert registry.asked == 1
    assert folder.parent == cache and visible(cache) == visible_under(folder, cache)


def test_progress_stands_on_standard_error_and_can_be_left_out(registry, capsys):
    assets.fetch("bells")
    out, err = capsys.readouterr()
    assert out == "" and "package 1.0" in err


def test_no_progress(registry, capsys):
    assets.fetch("bells", progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_damaged_download_is_refused_and_leaves_nothing(registry, cache):
    good = registry.archive.read_bytes()
    registry.archive.write_bytes(good[:-1] + b"?")
    with pytest.raises(InputError, match="package 1.0.*try again") as caught:
        assets.fetch("bells")
    assert "\n" not in str(caught.value)
    assert visible(cache) == []
    registry.archive.write_bytes(good)
    assert visible(assets.fetch("bells"))


def test_an_interrupted_download_leaves_nothing(registry, cache, monkeypatch):
    def cut(asset, folder):
        (folder / "package.whl.part").write_bytes(SOUND)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assets, "download", cut)
        with pytest.raises(KeyboardInterrupt):
            assets.fetch("bells")
    assert visible(cache) == []
    assert visible(assets.fetch("bells"))


KILLED = """
import os, signal, sys
from sari_jax import assets

def killed(asset, archive, out):
    out.mkdir()
    (out / "bell.wav").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

source = assets.Asset("pypi", "package", "1.0", sys.argv[2], ("package/sounds/",), "CC0-1.0")
assets.ASSETS = {"bells": source}
assets.download = lambda asset, folder: __import__("pathlib").Path(sys.argv[1])
assets._unpack = killed
assets.fetch("bells")
"""


def test_a_killed_fetch_is_taken_up_by_the_next(registry, cache):
    archive = registry.archive
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(archive), digest(archive)], env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL
    assert visible(cache) and not any(path.name.startswith("bells-") for path in cache.iterdir())
    folder = assets.fetch("bells")
    assert (folder / "bell.wav").read_bytes() == SOUND
    assert visible(cache) == visible_under(folder, cache)  # nothing of the killed one is left


def test_those_who_fetch_at_once_share_one_download(registry):
    folders = []
    threads = [
        threading.Thread(target=lambda: folders.append(assets.fetch("bells"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4 and len(set(folders)) == 1
    assert registry.asked == 1


def test_a_package_without_its_member_is_refused(registry, cache, monkeypatch):
    asset = assets.Asset(
        "pypi", "package", "1.0", digest(registry.archive), ("package/other/",), "CC0-1.0"
    )
    monkeypatch.setattr(assets, "ASSETS", {"bells": asset})
    with pytest.raises(InputError, match="holds no package/other/"):
        assets.fetch("bells")
    assert visible(cache) == []


def test_an_unknown_name_is_told_the_known_ones(registry):
    with pytest.raises(InputError, match="'bell' is unknown; known: bells"):
        assets.fetch("bell")
    assert assets.main(["bell"]) == 2


def test_a_cache_that_cannot_be_written(registry, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SARI_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="SARI_CACHE"):
        assets.fetch("bells")


def deb(folder: Path, version: str, content: bytes = SOUND) -> Path:
    tree = folder / f"tree-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: bells\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\nDescription: bells\n"
    )
    (tree / "usr/share/bells").mkdir(parents=True)
    (tree / "usr/share/bells/bell.wav").write_bytes(content)
    path = folder / f"bells_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, path], check=True, capture_output=True
    )
    return path


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="Debian's tools are not here")
def test_another_debian_build_serves_if_its_files_are_the_pinned_ones(tmp_path, cache, monkeypatch):
    (tmp_path / "pinned").mkdir()
    (tmp_path / "pinned/bell.wav").write_bytes(SOUND)
    asset = assets.Asset(
        "debian", "bells", "1.0", digest(deb(tmp_path, "1.0")), ("usr/share/bells/",), "CC0-1.0",
        assets.tree_sha256(tmp_path / "pinned"),
    )  # fmt: skip
    monkeypatch.setattr(assets, "ASSETS", {"bells": asset})
    monkeypatch.setattr(assets, "download", Registry(deb(tmp_path, "1.2", b"other")))
    with pytest.raises(InputError, match="bells_1.2_all.deb.*not the pinned"):
        assets.fetch("bells")
    monkeypatch.setattr(assets, "download", Registry(deb(tmp_path, "1.1")))
    assert visible(assets.fetch("bells")) == ["bell.wav"]


def run(returncode: int, stderr: str = ""):
    return lambda command, **_: subprocess.CompletedProcess(command, returncode, "", stderr)


def test_no_network_is_one_clear_line(tmp_path, cache, monkeypatch):
    told = "WARNING: Retrying\nERROR: No matching distribution found for pretty_midi\nsome notice\n"
    monkeypatch.setattr(assets.subprocess, "run", run(1, told))
    with pytest.raises(InputError) as caught:
        assets.fetch("timgm6mb")
    assert str(caught.value) == (
        "pretty_midi 0.2.11.post0 could not be fetched from pypi"
        " (ERROR: No matching distribution found for pretty_midi); check the network and try again"
    )
    assert visible(cache) == []


def test_apt_falls_back_to_the_version_on_offer(tmp_path, cache, monkeypatch):
    asked = []

    def apt(command, cwd, **_):
        asked.append(command[-1])
        if command[-1] == "update":
            (cache / "apt/lists/mirror_Packages").write_text("")
        if command[-1] == "sonic-pi-samples":
            (cwd / "sonic-pi-samples_9_all.deb").write_bytes(b"")
        return subprocess.CompletedProcess(
            command, "=" in command[-1], "", "E: Version was not found"
        )

    monkeypatch.setattr(assets.subprocess, "run", apt)
    monkeypatch.setattr(assets.shutil, "which", lambda name: name)
    archive = assets.download(assets.ASSETS["sonic-pi"], tmp_path)
    assert archive.name == "sonic-pi-samples_9_all.deb"
    assert asked == ["update", "sonic-pi-samples=3.2.2~repack-8", "sonic-pi-samples"]
    archive.unlink()
    asked.clear()
    assets.download(assets.ASSETS["sonic-pi"], tmp_path)
    assert asked == [
        "sonic-pi-samples=3.2.2~repack-8",
        "update",
        "sonic-pi-samples",
    ]  # the lists may be old


def test_without_apt(cache, monkeypatch):
    monkeypatch.setattr(assets.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="fluid-soundfont-gm: needs apt-get"):
        assets.fetch("fluidr3")


@pytest.mark.parametrize("name", assets.ASSETS)
def test_every_asset_is_pinned_and_licensed(name):
    asset = assets.ASSETS[name]
    assert asset.registry in ("pypi", "debian")
    for digest in filter(None, (asset.sha256, asset.files_sha256)):
        assert len(digest) == 64 and int(digest, 16)
    assert asset.version and asset.members and asset.licence
    assert (asset.files_sha256 is not None) == (asset.registry == "debian")
