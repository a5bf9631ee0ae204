"""List what an image holds, Debian's packages and Python's, as CycloneDX: `python -m deploy.sbom cpu`. Needs syft."""

import subprocess
import sys
import tempfile
from pathlib import Path

from deploy import engine, image


def write(target: str, directory: Path) -> Path:
    """Write `<directory>/ganery-<target>.cdx.json`.

    Raises:
        NoEngine: if nothing here can read the image.
        subprocess.CalledProcessError: if there is no such image, or syft fails.
    """
    directory.mkdir(exist_ok=True)
    path = directory / f"ganery-{target}.cdx.json"
    aside = path.with_suffix(".part")
    runs = engine.find(engine.RUNNERS)
    with tempfile.TemporaryDirectory() as temporary:
        archive = f"{temporary}/image.tar"
        format_ = ["--format", "docker-archive"] if runs == "podman" else []
        engine.run([runs, "save", *format_, "--output", archive, image.name(target)])
        command = ["syft", "scan", "--quiet", f"docker-archive:{archive}", "--output", f"cyclonedx-json={aside}"]
        subprocess.run(command, check=True, env={**engine.environment(), "SYFT_CHECK_FOR_APP_UPDATE": "false"})
    aside.replace(path)
    return path


if __name__ == "__main__":
    print(write(sys.argv[1], image.ROOT / "dist"))
