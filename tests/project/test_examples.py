"""The curl examples of the README, the deployment page and the chart, run as they stand against the real server.

`EXAMPLES_ADDRESS` names a server that runs already, such as one in a container.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from server_process import serving

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:3000"
PATIENCE = 60  # seconds; a busy machine is no failure
EXAMPLES = re.findall(r"```sh\n(curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
CHART = ROOT / "deploy" / "chart" / "templates"
DEPLOYED = [ROOT / "README.md", ROOT / "docs" / "deployment.md", CHART / "NOTES.txt"]
"""Each has commands that end with asking what has been deployed for a picture."""

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if given := os.environ.get("EXAMPLES_ADDRESS"):
        yield given
        return
    with serving(tmp_path_factory.mktemp("server"), ROOT / "models") as server:
        server.wait_for('"ready"')
        yield f"http://127.0.0.1:{server.port}"


def run(example: str, address: str, folder: Path) -> str:
    assert ADDRESS in example
    command = example.replace(ADDRESS, address)
    return subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, text=True).stdout


def shown_json(place: int) -> dict[str, Any]:
    """The JSON that stands under an example."""
    return json.loads(re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[place])


def test_there_are_examples():
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("page", DEPLOYED, ids=lambda page: page.name)
def test_what_has_been_deployed_gives_a_picture(address, tmp_path, page):
    (example,) = re.findall(r"^ *(curl .* -o picture\.png)$", page.read_text(), re.MULTILINE)
    run(example, address, tmp_path)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (28, 28)


def test_the_pod_of_helm_test_is_answered(address):
    pod = (CHART / "tests" / "one-picture.yaml").read_text()
    asked = re.search(r"\.Values\.service\.port }}(/\w+)\",\s+data=b'(.*)', headers=(\{.*\})\)", pod)
    assert asked is not None
    request = urllib.request.Request(address + asked[1], data=asked[2].encode(), headers=json.loads(asked[3]))
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.headers["X-Count"] == "1"


def test_a_picture_comes_with_the_headers_that_the_readme_shows(address, tmp_path):
    headers = run(EXAMPLES[0], address, tmp_path)
    with Image.open(tmp_path / "sneaker.png") as picture:
        assert picture.size == (28, 28)
    for name in ("x-sample-id", "x-determinism"):
        shown = re.search(rf"^{name}: .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
        assert shown is not None
        assert shown.group() in headers.replace("\r", "")


def test_a_data_set_comes_in_the_layout_of_webdataset(address, tmp_path):
    run(EXAMPLES[1], address, tmp_path)
    with tarfile.open(tmp_path / "augment.tar") as archive:
        labels = [archive.extractfile(f"{key:08d}.cls").read() for key in range(100)]
    assert labels == [b"7"] * 60 + [b"8"] * 40


def test_a_sample_is_made_again_and_recognised(address, tmp_path):
    verdict = json.loads(run(EXAMPLES[2], address, tmp_path))
    shown = shown_json(0)
    digest = verdict["sample"].pop("digest")
    assert digest.startswith(shown["sample"].pop("digest").rstrip("."))
    assert verdict == shown


def test_an_animation_comes(address, tmp_path):
    run(EXAMPLES[3], address, tmp_path)
    with Image.open(tmp_path / "boots.gif") as animation:
        assert animation.n_frames == 3 * 16


def test_a_translation_has_the_size_of_its_input(address, tmp_path):
    headers = run(EXAMPLES[4], address, tmp_path)
    assert "x-model: flat-to-3d" in headers
    with Image.open(tmp_path / "strips.png") as came, Image.open(tmp_path / "3d.png") as made:
        assert made.size == came.size
        assert "input_sha256" in made.text["ganery"]


def test_a_mistake_is_answered_as_the_readme_shows(address, tmp_path):
    problem = json.loads(run(EXAMPLES[5], address, tmp_path))
    expected = shown_json(1)
    for member in ("type", "title", "status", "detail", "pointer"):
        assert problem[member] == expected[member]
