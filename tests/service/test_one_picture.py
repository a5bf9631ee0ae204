"""One seed, one picture: whatever the route, the container, the batch, the neighbours, the process."""

import base64
import hashlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "models").glob("*/manifest.json"))
SERVER = """
import sys
from pathlib import Path
import uvicorn
from service.app import create_app
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.telemetry import Metrics

# A machine that stands still for a while is no failure.
settings = Settings(models_dir=Path(sys.argv[1]), provider="cpu", deadline_seconds=600, body_seconds=600)
app = create_app(Lifecycle(settings, Metrics()))
uvicorn.run(app, port=int(sys.argv[2]), log_config=None, timeout_keep_alive=600)
"""
# On one CPU, in another time zone, with another order of sets.
ELSEWHERE = {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"}


@contextmanager
def process(models, *, cpus, **environment):
    """A server of its own, on some CPUs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, models, str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),  # noqa: PLW1509 - no thread holds a lock here
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx2.TransportError:
                    pass  # not listening yet
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield client
    finally:
        server.terminate()
        server.wait(60)


class Pictures:
    """Asks for a model's pictures in every way there is, and remembers the hash of each one's pixels."""

    def __init__(self, client, model, seeds):
        self.client = client
        self.model = model
        self.seeds = seeds
        self.card = client.get(f"/models/{model}").raise_for_status().json()
        self.labels = range(len(self.card["classes"]))
        self.shape = tuple(self.card["output"][side] for side in ("height", "width", "channels"))
        self.seen = defaultdict(set)
        self.random = random.Random(0)

    def ask(self, path, **members):
        return self.client.post(path, json={"model": self.model, **members}).raise_for_status()

    def see(self, seed, label, pixels):
        pixels = np.ascontiguousarray(pixels).reshape(self.shape)
        self.seen[seed, label].add(hashlib.sha256(pixels.tobytes()).hexdigest())

    def see_file(self, seed, label, file):
        picture = Image.open(io.BytesIO(file))
        self.see(seed, label, np.asarray(picture.convert("L" if self.shape[2] == 1 else "RGB")))

    def alone(self):
        """Each by itself, many at a time."""

        def one(ask):
            seed, label = ask
            answer = self.ask("/generate", seed=seed, **{"class": label}, format=self.random.choice(["png", "webp"]))
            self.see_file(seed, label, answer.content)
            # The same again, by its name.
            again = self.client.get(f"/samples/{answer.headers['x-sample-id']}", headers={"Accept": "image/png"})
            self.see_file(seed, label, again.raise_for_status().content)

        asks = [(seed, label) for seed in self.seeds for label in self.labels]
        self.random.shuffle(asks)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(one, asks))

    def in_containers(self):
        """All of them in each container, every time in other company."""
        for container in (self.npz, self.tar, self.zip, self.json, self.sheet):
            for label in self.labels:
                seeds = self.random.sample(self.seeds, len(self.seeds))
                container(seeds, [label] * len(seeds), label)
            # Classes side by side, and some seeds twice.
            seeds = self.random.choices(self.seeds, k=len(self.seeds))
            turns = self.random.sample(self.labels, len(self.labels))
            container(seeds, [turns[index % len(turns)] for index in range(len(seeds))], turns)

    def npz(self, seeds, labels, classes):
        content = self.ask("/sample", seeds=seeds, classes=classes, format="npz").content
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            assert (arrays["seeds"].tolist(), arrays["labels"].tolist()) == (seeds, labels)
            for seed, label, pixels in zip(seeds, labels, arrays["pixels"], strict=True):
                self.see(seed, label, pixels)

    def tar(self, seeds, labels, classes):
        content = self.ask("/sample", seeds=seeds, classes=classes, format="tar", picture="webp").content
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for index, (seed, label) in enumerate(zip(seeds, labels, strict=True)):
                self.see_file(seed, label, tar.extractfile(f"{index:08d}.webp").read())
                assert tar.extractfile(f"{index:08d}.cls").read() == b"%d" % label

    def zip(self, seeds, labels, classes):
        content = self.ask("/sample", seeds=seeds, classes=classes, format="zip").content
        with zipfile.ZipFile(io.BytesIO(content)) as container:
            for seed, label, name in zip(seeds, labels, container.namelist(), strict=True):
                self.see_file(seed, label, container.read(name))

    def json(self, seeds, labels, classes):
        samples = self.ask("/sample", seeds=seeds, classes=classes, format="json").json()["samples"]
        for seed, label, sample in zip(seeds, labels, samples, strict=True):
            assert (sample["seed"], sample["label"]) == (seed, label)
            self.see_file(seed, label, base64.b64decode(sample["image"]))

    def sheet(self, seeds, labels, classes):
        content = self.ask("/sample", seeds=seeds, classes=classes, format="sheet").content
        picture = np.asarray(Image.open(io.BytesIO(content)))
        height, width, _ = self.shape
        columns = picture.shape[1] // width
        for index, (seed, label) in enumerate(zip(seeds, labels, strict=True)):
            row, column = divmod(index, columns)
            cell = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
            self.see(seed, label, cell)

    def on_the_way(self):
        """As points of interpolations."""
        asks = [{"seed": seed, "class": label} for seed in self.seeds for label in self.labels]
        self.random.shuffle(asks)
        for first in range(0, len(asks) - 1, 60):
            points = asks[first : first + 60]
            content = self.ask("/interpolate", points=points, steps=1, loop=True, format="zip").content
            with zipfile.ZipFile(io.BytesIO(content)) as container:
                for point, name in zip(points, container.namelist(), strict=True):
                    self.see_file(point["seed"], point["class"], container.read(name))

    def everything(self):
        with ThreadPoolExecutor() as threads:
            for way in [threads.submit(way) for way in (self.alone, self.in_containers, self.on_the_way)]:
                way.result()
        return self.seen


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, write_bundle):
    """A bundle whose rows nothing changes, and one whose rows change with their company."""
    models = tmp_path_factory.mktemp("tiny") / "models"
    for name, moody in (("calm", False), ("moody", True)):
        graph = {"num_classes": 3, "channels": 1, "moody": moody}
        output = {"height": 8, "width": 8, "channels": 1}
        write_bundle(models, name, graph=graph, classes=["zero", "one", "two"], output=output)
    return models


def one_hash_for_each(models, name, count):
    """Compare two servers, which work at the same time: one on all CPUs, one on a single CPU."""
    seeds = [*range(count - 3), 2**32 - 1, 2**63, 2**64 - 1]
    cpus = os.sched_getaffinity(0)
    with process(models, cpus=cpus) as here, process(models, cpus={min(cpus)}, **ELSEWHERE) as there:
        pictures = [Pictures(client, name, seeds) for client in (here, there)]
        with ThreadPoolExecutor() as threads:
            seen = [result.result() for result in [threads.submit(each.everything) for each in pictures]]
    assert len(seen[0]) == len(seeds) * len(pictures[0].labels)
    assert seen[0] == seen[1]
    assert {len(hashes) for hashes in seen[0].values()} == {1}
    # And they are pictures of something: as many as there are samples.
    assert len({hash_ for hashes in seen[0].values() for hash_ in hashes}) == len(seen[0])
    return pictures[0].card["determinism"]


@pytest.mark.parametrize(("name", "determinism"), [("calm", "exact; batch=free"), ("moody", "exact; batch=8")])
def test_one_seed_one_picture(tiny, name, determinism):
    assert one_hash_for_each(tiny, name, count=100) == determinism


class Translations:
    """Asks some models for translations in every way there is, and remembers the hash of each file."""

    def __init__(self, client, models, inputs):
        self.client = client
        self.inputs = inputs
        cards = [client.get(f"/models/{model}").raise_for_status().json() for model in models]
        self.seeded = {card["name"]: card["seeds"] > 0 for card in cards}
        self.determinism = {card["determinism"] for card in cards}
        self.seen = defaultdict(set)
        self.random = random.Random(0)

    def ask(self, model, seed, **body):
        query = {"model": model} | ({"seed": seed} if self.seeded[model] else {})
        return self.client.post("/translate", params=query, **body).raise_for_status().content

    def see(self, index, model, seed, content):
        self.seen[index, model, seed if self.seeded[model] else None].add(hashlib.sha256(content).hexdigest())

    def alone(self, model):
        def one(ask):
            index, seed = ask
            body = {"content": self.inputs[index], "headers": {"content-type": "image/png"}}
            self.see(index, model, seed, self.ask(model, seed, **body))

        asks = [(index, seed) for index in range(len(self.inputs)) for seed in (1, 2**64 - 1)]
        self.random.shuffle(asks)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(one, asks))

    def in_containers(self, model):
        for seed in (1, 2**64 - 1):
            order = self.random.sample(range(len(self.inputs)), len(self.inputs))
            files = [("image", (f"{index}.png", self.inputs[index])) for index in order]
            with zipfile.ZipFile(io.BytesIO(self.ask(model, seed, files=files))) as container:
                assert container.namelist() == [f"{index}.png" for index in order]
                for index, name in zip(order, container.namelist(), strict=True):
                    self.see(index, model, seed, container.read(name))

    def beside(self):
        """Other work on the same CPUs."""
        for seed in range(5):
            self.client.post("/sample", json={"seed": seed, "count": 500}).raise_for_status()

    def everything(self):
        with ThreadPoolExecutor() as threads:
            ways = [threads.submit(way, model) for way in (self.alone, self.in_containers) for model in self.seeded]
            for way in [*ways, threads.submit(self.beside)]:
                way.result()
        return self.seen


def one_hash_for_each_translation(models, names, inputs):
    """Compare two servers, as `one_hash_for_each` does; how the models keep the promise."""
    files = []
    for pixels in inputs:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        files.append(stream.getvalue())
    cpus = os.sched_getaffinity(0)
    with (
        process(models, cpus=cpus) as here,
        process(models, cpus={min(cpus)}, **ELSEWHERE) as there,
        ThreadPoolExecutor() as threads,
    ):
        asked = [Translations(client, names, files) for client in (here, there)]
        seen = list(threads.map(Translations.everything, asked))
    assert len(seen[0]) == len(files) * sum(2 if seeded else 1 for seeded in asked[0].seeded.values())
    assert seen[0] == seen[1]
    assert {len(hashes) for hashes in seen[0].values()} == {1}
    return asked[0].determinism


def test_one_input_and_seed_one_translation(models):
    rng = np.random.default_rng(0)
    sizes = [(8, 8)] * 4 + [(64, 48)] * 4 + [(1, 1), (5, 300), (300, 280), (560, 700)]
    inputs = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    one_hash_for_each_translation(models, ["fixed", "any"], inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["calm", "moody"])
def test_a_thousand_seeds_a_thousand_pictures(tiny, name):
    one_hash_for_each(tiny, name, count=1000)


@pytest.mark.slow
@pytest.mark.parametrize("manifest", SHIPPED, ids=lambda path: path.parent.name)
def test_one_seed_one_picture_of_every_bundle_that_is_shipped(manifest):
    directory, described = manifest.parent, json.loads(manifest.read_bytes())
    if described["task"] == "generate":
        if described["classes"] is None:
            pytest.skip("it knows no classes")
        assert one_hash_for_each(directory.parent, directory.name, count=100).startswith("exact")
        return
    with np.load(directory / "golden.npz") as arrays:
        pictures = list(arrays["images"])
    # Some side by side, as a picture of another size, and larger than a tile if any size is taken.
    wide = np.tile(np.concatenate(pictures, axis=1), (1, 3, 1))
    inputs = [picture.squeeze(2) if picture.shape[2] == 1 else picture for picture in (*pictures, wide[:50, :600])]
    (determinism,) = one_hash_for_each_translation(directory.parent, [directory.name], inputs)
    assert determinism.startswith("exact")
