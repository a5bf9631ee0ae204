"""Make a stand-in for the image `python:3.11-slim` from Debian's packages, for machines that reach no image registry.

It is Debian's Python in /usr/bin, not the official image's in /usr/local, and trusts what the machine trusts: for
building and testing, never for publishing. Needs root, mmdebstrap, and Debian 12 or another whose Python is 3.11.
"""

import platform
import subprocess
import tempfile
from pathlib import Path

STAND_IN = "localhost/ganery-python-stand-in:3.11"

DOCKERFILE = """
FROM scratch
ADD root.tar /
COPY certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -sf python3 /usr/bin/python
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL org.opencontainers.image.title="a stand-in for python:3.11-slim, for tests"
CMD ["python3"]
"""


def make(build: list[str]) -> None:
    """Build it with an engine's command, to which the tag and the directory are added.

    Args:
        build: for example `["podman", "build", "--network", "host"]`.

    Raises:
        subprocess.CalledProcessError: what failed has said why.
    """
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    sources = "".join(path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")))
    with tempfile.TemporaryDirectory() as directory:
        unwanted = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "locale", "doc")]
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        command = [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            packages,
            *unwanted,
            suite,
            f"{directory}/root.tar",
        ]
        subprocess.run(command, input=sources, text=True, check=True)
        Path(directory, "certificates.crt").write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
        Path(directory, "Dockerfile").write_text(DOCKERFILE)
        subprocess.run([*build, "--tag", STAND_IN, directory], check=True)
