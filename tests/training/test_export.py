import hashlib
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from service.bundle import Bundle
from service.errors import NonFiniteOutput
from service.golden import check_golden
from service.graph_check import check_graph
from service.manifest import (
    GENERATOR_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    Manifest,
    Metric,
    Picture,
    Training,
    file_sha256,
)
from service.runtime import CPU
from training import export as export_module
from training.__main__ import build
from training.architectures import GENERATORS, TRANSLATORS
from training.datasets import Pictures
from training.export import Parity, check_parity, export
from training.graph import Graph, Sampler, open_graph
from training.layers import as_bytes, is_finite
from training.onnx_file import ExportError, write_onnx
from training.recipe import parse_recipe

TRAINED = Training(nimg=240, seconds=7.5, devices=("a CPU, 2 threads",))


@pytest.fixture
def method(recipe):
    return build(recipe, recipe.data.load("train"))


def write(recipe, method, target, **settings):
    return export(
        recipe,
        method,
        target,
        bundle_version=settings.pop("bundle_version", "1"),
        images=96,
        training=TRAINED,
        metrics=settings.pop("metrics", {}),
        **settings,
    )


def test_a_bundle_says_everything_about_itself(recipe, method, tmp_path):
    extra = tmp_path / "progress.webp"
    Image.new("L", (4, 4)).save(extra)
    metrics = {"cas": Metric(value=0.9, better="higher", n=10)}
    parity = write(recipe, method, tmp_path / "models" / "tiny", extra_files=[extra], metrics=metrics)
    assert [result.batch for result in parity] == [1, 2, 7, 32]
    assert all(result.holds for result in parity)
    folder = tmp_path / "models" / "tiny"
    manifest = Manifest.read(folder)
    files = {path.name for path in folder.iterdir()}
    assert files == {"generator.onnx", "golden.npz", "manifest.json", "progress.webp", "samples.png"}
    assert manifest.sha256 == {name: file_sha256(folder / name) for name in files - {MANIFEST_FILE}}
    assert (manifest.name, manifest.task, manifest.classes) == ("tiny", "generate", ("above", "left"))
    assert manifest.latent is not None
    assert (manifest.latent.z_dim, manifest.latent.scheme, manifest.latent.truncation) == (4, "philox", "z")
    assert (manifest.output.height, manifest.output.width, manifest.output.channels) == (8, 8, 1)
    assert manifest.recipe == recipe.resolved()
    assert manifest.metrics == metrics
    assert manifest.training == TRAINED
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]  # no scratch is left


def test_a_seed_is_the_same_picture_in_torch_and_in_the_bundle(recipe, method, tmp_path):
    write(recipe, method, tmp_path / "tiny")
    manifest = Manifest.read(tmp_path / "tiny")
    sampler = Sampler(open_graph(tmp_path / "tiny" / GENERATOR_FILE), manifest.latent)
    seeds, labels = np.arange(6, dtype=np.uint64), np.array([0, 1] * 3)
    expected = as_bytes(method.sample(seeds.tolist(), labels.tolist())).numpy()
    assert np.abs(sampler(seeds, labels).astype(int) - expected).max() <= 1
    golden = manifest.golden[0]
    (pixels,) = sampler(np.array([golden.seed], np.uint64), np.array([golden.label]))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == golden.pixels_sha256


def test_golden_samples_match_where_they_were_made(recipe, method, tmp_path):
    write(recipe, method, tmp_path / "tiny")
    manifest = Manifest.read(tmp_path / "tiny")
    sampler = Sampler(open_graph(tmp_path / "tiny" / GENERATOR_FILE), manifest.latent)

    def make(seeds, labels):
        return sampler(np.array(seeds, np.uint64), np.array(labels))

    content = (tmp_path / "tiny" / GOLDEN_FILE).read_bytes()
    report = check_golden(manifest, content, make, CPU)
    assert (report.result, report.same_hardware, report.checked, report.largest) == ("matches", True, 4, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_graph_computes_on_one_thread_however_many_cpus_there_are(recipe, method, tmp_path):
    """As the service does; kernels on several would split their sums otherwise, and golden samples would differ."""
    write(recipe, method, tmp_path / "tiny")
    before = len(list(Path("/proc/self/task").iterdir()))
    run = open_graph(tmp_path / "tiny" / GENERATOR_FILE)
    assert len(list(Path("/proc/self/task").iterdir())) <= before
    assert run({"z": np.zeros((1, 4), np.float32), "y": np.zeros(1, np.int64), "psi": np.ones(1, np.float32)}).any()


def test_the_graph_truncates_and_names_nothing_of_this_machine(recipe, method, tmp_path):
    write(recipe, method, tmp_path / "tiny")
    content = (tmp_path / "tiny" / GENERATOR_FILE).read_bytes()
    session = onnxruntime.InferenceSession(content)
    assert {node.name for node in session.get_inputs()} == {"z", "y", "psi"}
    z, y = np.ones((2, 4), np.float32), np.zeros(2, np.int64)
    half_psi = session.run(None, {"z": z, "y": y, "psi": np.full(2, 0.5, np.float32)})[0]
    half_z = session.run(None, {"z": z / 2, "y": y, "psi": np.ones(2, np.float32)})[0]
    assert np.array_equal(half_psi, half_z)
    assert b".py" not in content
    assert not any(tensor.external_data for tensor in onnx.load_from_string(content).graph.initializer)


def test_exporting_twice_gives_the_same_bytes(recipe, method, tmp_path):
    write(recipe, method, tmp_path / "a" / "tiny")
    write(recipe, method, tmp_path / "b" / "tiny")
    for name in (GENERATOR_FILE, GOLDEN_FILE, MANIFEST_FILE):
        assert (tmp_path / "a" / "tiny" / name).read_bytes() == (tmp_path / "b" / "tiny" / name).read_bytes()


def test_a_bundle_that_disagrees_with_torch_is_not_written(recipe, method, tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / MANIFEST_FILE).write_text("an older bundle")
    monkeypatch.setattr(export_module, "check_parity", lambda *_: [Parity(2, levels=9, differing=50, values=100)])
    with pytest.raises(ExportError, match="at most 9 level"):
        write(recipe, method, tmp_path / "tiny")
    assert (tmp_path / "tiny" / MANIFEST_FILE).read_text() == "an older bundle"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_interrupt_between_the_old_bundle_and_the_new_leaves_the_old_one(recipe, method, tmp_path, monkeypatch):
    write(recipe, method, tmp_path / "tiny")
    before = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    rename = Path.rename

    def interrupted(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(recipe, method, tmp_path / "tiny")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_bundle_is_on_the_disk_before_it_takes_its_place(recipe, method, tmp_path, monkeypatch):
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    write(recipe, method, tmp_path / "tiny")
    bundle = tmp_path / "tiny"
    assert {path.stat().st_ino for path in (*bundle.iterdir(), bundle, tmp_path)} <= synced


@pytest.mark.parametrize(
    ("levels", "differing", "values", "holds"),
    [
        (0, 0, 10_000, True),
        (1, 10, 10_000, True),
        (1, 11, 10_000, False),
        (2, 1, 10_000, False),
        (1, 1, 32, True),  # the smallest pictures that a translator is tried on
        (1, 2, 32, False),
        (2, 1, 32, False),
    ],
)
def test_parity_is_one_level_on_a_thousandth_or_on_one_value(levels, differing, values, holds):
    assert Parity(2, levels, differing, values).holds is holds


@pytest.mark.parametrize(("ties", "holds"), [(1, True), (2, False)])
def test_one_value_of_a_small_picture_may_be_on_the_verge_of_two_levels(tmp_path, monkeypatch, ties, holds):
    images = torch.full((2, 4, 4, 1), 100, dtype=torch.uint8)
    graph = Graph(
        task="translate",
        module=Handed(),
        inputs=lambda n: {"image": images.repeat(n, 1, 1, 1)[:n]},
        output=Picture(height=4, width=4, channels=1),
        sheet=lambda run: np.zeros((1, 1, 4, 4, 1), np.uint8),
        golden=lambda run: ((), {}),
        other_inputs=({"image": images},),
    )

    def rounded_otherwise(inputs):
        pixels = inputs["image"].copy()
        if len(pixels) == len(images):  # the other size is tried with all its rows
            pixels.flat[:ties] += 1
        return pixels

    monkeypatch.setattr(export_module, "open_graph", lambda path: rounded_otherwise)
    *_, one_row, all_rows = check_parity(graph, tmp_path)
    assert one_row.holds
    assert all_rows.holds is holds
    assert (all_rows.differing, all_rows.values) == (ties, 32)


class Handed(nn.Module):
    def forward(self, image):
        return image, torch.ones(len(image), dtype=torch.bool)


class Noisy(nn.Module):
    def forward(self, z):
        return z + torch.randn_like(z)


class Determinant(nn.Module):
    def forward(self, z):
        return torch.linalg.det(z)


def test_a_picture_that_is_not_finite_says_so():
    images = torch.zeros(5, 1, 2, 2)
    images[1, 0, 0, 0], images[2, 0, 1, 1], images[3, 0, 0] = (
        torch.nan,
        torch.inf,
        torch.tensor([torch.inf, -torch.inf]),
    )
    assert is_finite(images).tolist() == [True, False, False, False, True]
    assert is_finite(torch.full((1, 3, 64, 64), 10.0, dtype=torch.float16)).item()  # whose sum float16 does not hold


def test_a_graph_that_is_not_finite_gives_no_picture(recipe, method, tmp_path):
    write(recipe, method, tmp_path / "tiny")
    run = open_graph(tmp_path / "tiny" / GENERATOR_FILE)
    with pytest.raises(NonFiniteOutput):
        run({"z": np.full((1, 4), np.nan, np.float32), "y": np.zeros(1, np.int64), "psi": np.ones(1, np.float32)})


def test_weights_that_are_not_finite_are_refused(tmp_path):
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.bias[1] = torch.inf
    with pytest.raises(ExportError, match="NaN or infinity in bias"):
        write_onnx(module, {"input": torch.zeros(2, 3)}, ["pixels"], tmp_path / "broken.onnx")
    assert not (tmp_path / "broken.onnx").exists()


@pytest.mark.parametrize(
    ("fixture", "name"),
    [*(("tables", name) for name in GENERATORS), *(("paired_tables", name) for name in TRANSLATORS)],
)
def test_the_service_loads_what_training_exports_of_every_architecture(fixture, name, request, tmp_path):
    tables = {**request.getfixturevalue(fixture), "generator": {"architecture": name}}
    recipe = parse_recipe(tables, "the recipe")
    write(recipe, build(recipe, recipe.data.load("train")), tmp_path / "tiny")
    check_graph((tmp_path / "tiny" / GENERATOR_FILE).read_bytes())
    assert Bundle.load(tmp_path / "tiny").golden.result == "matches"


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (Noisy(), "'RandomNormalLike': randomness inside the graph"),
        (Determinant(), r"'Det': it is not among those .* add it to those of service/graph_check\.py"),
    ],
    ids=["noisy", "unknown operator"],
)
def test_what_no_service_would_run_is_refused(tmp_path, module, complaint):
    with pytest.raises(ExportError, match=complaint):
        write_onnx(module, {"z": torch.zeros(2, 3, 3)}, ["pixels"], tmp_path / "refused.onnx")
    assert not (tmp_path / "refused.onnx").exists()


def test_an_unconditional_generator_has_no_input_y(tables, tmp_path):
    recipe = parse_recipe(tables, "the recipe")
    data = recipe.data.load("train")
    plain = build(recipe, Pictures(data.pixels, torch.zeros_like(data.labels), ()))
    write(recipe, plain, tmp_path / "plain")
    manifest = json.loads((tmp_path / "plain" / MANIFEST_FILE).read_text())
    assert manifest["classes"] is None
    session = onnxruntime.InferenceSession((tmp_path / "plain" / GENERATOR_FILE).read_bytes())
    assert [node.name for node in session.get_inputs()] == ["z", "psi"]


@pytest.mark.parametrize("name", ["Fashion", ".hidden", "a b"])
def test_a_name_that_no_bundle_may_have_is_refused_first(recipe, method, tmp_path, name):
    with pytest.raises(ExportError, match="is no name for a bundle"):
        write(recipe, method, tmp_path / name)


@pytest.mark.parametrize(
    ("version", "complaint"), [("", "'' as Manifest.version: String"), ("1" * 65, "at most 64 characters")]
)
def test_a_version_that_no_manifest_may_have_is_refused(recipe, method, tmp_path, version, complaint):
    with pytest.raises(ExportError, match=re.escape(complaint)):
        write(recipe, method, tmp_path / "models" / "tiny", bundle_version=version)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_class_that_no_manifest_may_name_is_refused(recipe, tmp_path):
    data = recipe.data.load("train")
    named = build(recipe, Pictures(data.pixels, data.labels, ("above", "x" * 201)))
    with pytest.raises(ExportError, match=r"'x.*\.\.\..*x' as Manifest\.classes\.1: String should have at most 200"):
        write(recipe, named, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_a_latent_that_no_manifest_may_have_is_refused(tables, tmp_path):
    tables["generator"]["z_dim"] = 65537
    recipe = parse_recipe(tables, "the recipe")
    with pytest.raises(ExportError, match=r"65537 as Latent\.z_dim: .* less than or equal to 65536"):
        write(recipe, build(recipe, recipe.data.load("train")), tmp_path / "tiny")


def test_a_bundle_of_another_recipe_is_left_alone(recipe, method, tmp_path):
    write(recipe, method, tmp_path / "tiny")
    before = (tmp_path / "tiny" / MANIFEST_FILE).read_bytes()
    with pytest.raises(ExportError, match="tiny holds tiny, and this is other; name another directory"):
        write(recipe.model_copy(update={"name": "other"}), method, tmp_path / "tiny")
    assert (tmp_path / "tiny" / MANIFEST_FILE).read_bytes() == before


def test_a_directory_that_is_no_bundle_is_left_alone(recipe, method, tmp_path):
    (tmp_path / "models" / "fashion").mkdir(parents=True)
    with pytest.raises(ExportError, match="exists and is no bundle"):
        write(recipe, method, tmp_path / "models")
    assert (tmp_path / "models" / "fashion").is_dir()
