"""The CPU image in a container with nothing to write to, no capabilities and 512 MB. `make image-test` runs this."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest
import yaml
from container import PATIENCE, Container, copy_of_models, runner, running
from PIL import Image
from test_one_picture import Pictures, process

from deploy import engine, image, licences
from service.manifest import Manifest

pytestmark = pytest.mark.image

MODELS = image.ROOT / "models"
MEGABYTE = 10**6
LARGEST = {"cpu": 500 * MEGABYTE, "gpu": 3000 * MEGABYTE}
SEEDS = [*range(20), 2**32 - 1, 2**64 - 1]
ASK = {"seed": 42, "class": "sneaker"}

STATUS = "print(open('/proc/1/status').read())"
# The kernel's control groups of version 1, of version 2, and of version 2 before Linux 5.19, which keeps no peak.
PEAK = """
from pathlib import Path
files = ("memory/memory.max_usage_in_bytes", "memory.peak", "memory.current")
print(next(path.read_text() for file in files if (path := Path("/sys/fs/cgroup", file)).exists()))
"""
KILL_THE_LARGEST = """
import os, pathlib
processes = [path for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]
sizes = {int(path.name): int((path / "statm").read_text().split()[1]) for path in processes}
sizes.pop(1), sizes.pop(os.getpid())
os.kill(max(sizes, key=sizes.get), 9)
"""


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with running() as container:
        container.wait_for('"ready"')
        yield container


def inspect(target: str, field: str) -> str:
    command = [runner(), "image", "inspect", image.name(target), "--format", field]
    return engine.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.strip()


@pytest.mark.parametrize("target", LARGEST)
def test_size(target, capsys):
    if not (size := inspect(target, "{{.Size}}")):
        pytest.skip(f"no image {image.name(target)}; `make image TARGET={target}` makes it")
    with capsys.disabled():
        print(f"\n{target}: {int(size) / MEGABYTE:.0f} MB unpacked")
    assert int(size) <= LARGEST[target]


def test_labels_say_what_it_is():
    for label, value in image.labels(
        inspect("cpu", '{{index .Config.Labels "org.opencontainers.image.base.name"}}')
    ).items():
        found = inspect("cpu", f'{{{{index .Config.Labels "{label}"}}}}')
        assert found
        if label.endswith("version"):
            assert found == value


def test_starts_and_keeps_within_its_memory(container, capsys):
    with running() as another:
        seconds = another.wait_for('"ready"')
        assert another.client.post("/sample", json={"seed": 0, "count": 5000, "format": "npz"}).status_code == 200
        peak = int(another.python(PEAK).stdout)
    with capsys.disabled():
        print(f"\nready {seconds:.1f} s after `run`, where the README says under 5 s")
        print(f"at most {peak / MEGABYTE:.0f} MB, in 5,000 pictures")
    assert peak < 512 * 2**20


def test_has_no_rights(container):
    status = dict(line.split(":\t", 1) for line in container.python(STATUS).stdout.splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("directory", ["/", "/app", "/models", "/opt/ganery", "/tmp"])
def test_can_write_nowhere(container, directory):
    refused = container.python(f"open('{directory}/x', 'w')", check=False)
    assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr


@pytest.mark.parametrize("module", ["torch", "training", "pip", "setuptools"])
def test_does_not_hold_what_only_building_and_training_need(container, module):
    assert "ModuleNotFoundError" in container.python(f"import {module}", check=False).stderr


def test_holds_no_compiler(container):
    found = container.python(
        "import shutil; print([c for c in ('cc', 'gcc', 'g++', 'make', 'git') if shutil.which(c)])"
    )
    assert found.stdout.strip() == "[]"


def test_says_the_licences_of_its_bundles(container):
    said = container.python("print(open('/app/LICENCES.txt').read(), open('/app/LICENSE').read())").stdout
    for line in licences.lines(MODELS):
        assert line in said
    assert "Apache License" in said


def test_examples_of_the_readme(container):
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses=0", "tests/project/test_examples.py"]
    environment = {**os.environ, "EXAMPLES_ADDRESS": container.address}
    ended = subprocess.run(command, cwd=image.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def shipped(task: str) -> list[Manifest]:
    """The bundles of the image that do this."""
    manifests = [Manifest.read(path.parent) for path in sorted(MODELS.glob("*/manifest.json"))]
    return [manifest for manifest in manifests if manifest.task == task]


def test_one_seed_one_picture_inside_and_outside(container):
    with process(MODELS, cpus=os.sched_getaffinity(0)) as outside:
        for manifest in shipped("generate"):
            clients = container.client, outside
            seen = [Pictures(client, manifest.name, SEEDS).everything() for client in clients]
            assert seen[0] == seen[1]
            assert {len(hashes) for hashes in seen[0].values()} == {1}
            assert len(seen[0]) == len(SEEDS) * len(Pictures(container.client, manifest.name, SEEDS).labels)


def translations(client: httpx2.Client, manifest: Manifest, files: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What becomes of files: of each by itself, many at a time; and of all in one request."""
    query = {"model": manifest.name} | ({"seed": 7} if manifest.latent else {})

    def translate(**body: Any) -> bytes:
        return client.post("/translate", params=query, **body).raise_for_status().content

    def pixels(file: bytes) -> bytes:
        return Image.open(io.BytesIO(file)).tobytes()

    with ThreadPoolExecutor(4) as threads:
        headers = {"content-type": "image/png"}
        alone = list(threads.map(lambda file: pixels(translate(content=file, headers=headers)), files))
    parts = [("image", (f"{index}.png", file)) for index, file in enumerate(files)]
    with zipfile.ZipFile(io.BytesIO(translate(files=parts))) as together:
        return alone, [pixels(together.read(name)) for name in together.namelist()]


def test_one_input_and_seed_one_translation_inside_and_outside(container):
    with process(MODELS, cpus=os.sched_getaffinity(0)) as outside:
        for manifest in shipped("translate"):
            samples, files = Image.open(MODELS / manifest.name / "samples.png"), []
            for size in [(96, 64), (33, 50), (300, 280)]:
                file = io.BytesIO()
                samples.crop((0, 0, *size)).save(file, "PNG")
                files.append(file.getvalue())
            first, *others = (*translations(container.client, manifest, files), *translations(outside, manifest, files))
            assert others == [first] * 3


def flood(address: str, stop: Event, ends: list[str]) -> None:
    """Ask for pictures, each on a connection of its own, until told to stop or refused; note how each ended."""
    while not stop.is_set():
        try:
            ends.append(str(httpx2.post(f"{address}/generate", json=ASK, timeout=PATIENCE).status_code))
        except httpx2.ConnectError:  # nobody listens: nothing was accepted
            ends.append("refused")
            break
        except httpx2.TransportError as error:
            ends.append(type(error).__name__)


@pytest.mark.parametrize("drain", ["0", "2"])
def test_sigterm_under_load_loses_no_accepted_request(drain):
    stop, ends = Event(), []
    with ThreadPoolExecutor(8) as threads, running(SERVICE_DRAIN_SECONDS=drain) as container:
        container.wait_for('"ready"')
        floods = [threads.submit(flood, container.address, stop, ends) for _ in range(8)]
        wait_until(lambda: len(ends) > 16)
        container.engine("kill", "--signal=TERM", container.identity)
        code = container.exit_code()
        stop.set()
        for each in floods:
            each.result()
    assert code == 0
    assert set(ends) <= {"200", "refused"}


def break_graph(bundle: Path) -> None:
    """One bit of the network has changed on its way."""
    graph = bundle / "generator.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def names(cards: list[dict[str, Any]]) -> list[str]:
    return [card["name"] for card in cards]


def test_a_broken_bundle_is_refused_and_the_others_serve(tmp_path):
    models = copy_of_models(tmp_path)
    broken = models / shipped("generate")[0].name
    kept = broken.with_name("kept")
    kept.mkdir(mode=0o755)
    for file in broken.iterdir():
        (kept / file.name).write_bytes(file.read_bytes())
    (kept / "manifest.json").write_text((kept / "manifest.json").read_text().replace(f'"{broken.name}"', '"kept"', 1))
    break_graph(broken)
    with running(models) as container:
        container.wait_for('"ready"')
        listing = container.client.get("/models").json()
        assert container.client.post("/generate", json=ASK).headers["x-model"] == "kept"
        assert f'ganery_bundle_up{{model="{broken.name}"}} 0.0' in container.client.get("/metrics").text
    assert "kept" in str(listing)
    assert broken.name in str(listing)


def test_with_nothing_but_a_broken_bundle_it_never_becomes_ready(tmp_path):
    models = copy_of_models(tmp_path)
    for manifest in models.glob("*/manifest.json"):
        break_graph(manifest.parent)
    with running(models) as container:
        container.wait_for("sha256")
        assert container.client.get("/readyz").status_code == 503
        assert container.client.get("/livez").status_code == 200


def picture(container: Container) -> bytes:
    return container.client.post("/generate", json=ASK).raise_for_status().content


def test_a_process_over_the_memory_limit_is_killed_and_the_pictures_stay_the_same():
    with running() as container:
        container.wait_for('"ready"')
        before = picture(container)
        greedy = container.python("bytearray(10**9)[::4096].count(1)", check=False)
        assert greedy.returncode == 137
        container.wait_for('"ready"')
        assert picture(container) == before


def test_the_largest_process_is_killed_as_the_kernel_would_and_comes_back():
    with running() as container:
        container.wait_for('"ready"')
        before = picture(container)
        container.python(KILL_THE_LARGEST)
        wait_until(lambda: again(container) == before)


def again(container: Container) -> bytes | None:
    """The picture, or nothing while nobody answers."""
    try:
        answer = container.client.post("/generate", json=ASK)
    except httpx2.TransportError:
        return None
    return answer.content if answer.status_code == 200 else None


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def test_podman_plays_the_rendered_deployment(rendered, tmp_path):
    """As far as podman knows Kubernetes: the settings, the security context, limits and volumes of the chart."""
    if runner() != "podman":
        pytest.skip("needs podman; docker plays no Deployment")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    objects = [each for each in yaml.safe_load_all(rendered["cpu"].read_text()) if each]
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    deployment["spec"]["replicas"] = 1
    pod = deployment["spec"]["template"]["spec"]
    # On the host's loopback: a network of its own would need iptables and a kernel that lets us use them.
    pod["hostNetwork"] = True
    (container,) = pod["containers"]
    container |= {"image": image.name("cpu"), "args": ["serve", "--host", "127.0.0.1", "--port", str(port)]}
    del container["ports"]
    settings = [each for each in objects if each["kind"] == "ConfigMap" and "SERVICE_MODELS_DIR" in each["data"]]
    played = tmp_path / "played.yaml"
    played.write_text(yaml.safe_dump_all([*settings, deployment]))
    # Its words go to a file, because its monitor keeps a pipe open for as long as the pod runs.
    with (tmp_path / "podman.log").open("w+") as log:
        told: dict[str, Any] = {"check": False, "stdout": log, "stderr": log}
        ended = engine.run(["podman", "play", "kube", str(played)], **told)
        try:
            log.seek(0)
            assert ended.returncode == 0, log.read()
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                wait_until(lambda: answers(client))
                played_picture = client.post("/generate", json=ASK).raise_for_status().content
        finally:
            engine.run(["podman", "play", "kube", "--down", str(played)], **told)
    with running() as container:
        container.wait_for('"ready"')
        assert picture(container) == played_picture


def answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def test_the_gpu_image_refuses_to_serve_from_a_cpu_when_told_cuda():
    if not inspect("gpu", "{{.Size}}"):
        pytest.skip(f"no image {image.name('gpu')}; `make image TARGET=gpu` makes it")
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine may have a GPU")
    with running(target="gpu", memory="2g", SERVICE_PROVIDER="auto") as container:
        container.wait_for('"ready"')
        code = "import importlib.metadata as m; print([each.name for each in m.distributions()])"
        assert "onnxruntime-gpu" in container.python(code).stdout
    with running(target="gpu", memory="2g", SERVICE_PROVIDER="cuda") as container:
        container.wait_for("no bundle")
        assert container.client.get("/readyz").status_code == 503
        assert "fell back to CPUExecutionProvider" in container.client.get("/models").text
