"""The README's curl examples, run as they stand against the real server and the shipped bundle."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:3000"
PATIENCE = 60  # seconds; a busy machine is no failure
EXAMPLES = re.findall(r"```sh\n(curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("server")
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                Path(sys.executable).with_name("bentoml"),
                "serve",
                "service.api:Ganery",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            cwd=ROOT,
            env={**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE):
                    break
            except OSError:
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def run(example: str, address: str, folder: Path) -> str:
    assert ADDRESS in example
    command = example.replace(ADDRESS, address)
    return subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_there_are_examples():
    assert len(EXAMPLES) == 2


def test_a_picture_comes_with_the_headers_that_the_readme_shows(address, tmp_path):
    headers = run(EXAMPLES[0], address, tmp_path)
    with Image.open(tmp_path / "sneaker.png") as picture:
        assert picture.size == (28, 28)
    shown = re.search(r"^x-sample-id: .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown is not None
    assert shown.group() in headers.replace("\r", "")


def test_a_mistake_is_answered_as_the_readme_shows(address, tmp_path):
    problem = json.loads(run(EXAMPLES[1], address, tmp_path))
    shown = re.search(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    expected = json.loads(shown.group(1))
    for member in ("type", "title", "status", "detail", "pointer"):
        assert problem[member] == expected[member]
