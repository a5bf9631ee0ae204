"""What the methods that translate have in common: they resume, are shown, exported and checked."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from service.errors import InvalidBundle
from service.golden import check_golden_translations
from service.graph_check import check_graph
from service.latents import draw
from service.manifest import GENERATOR_FILE, GOLDEN_FILE, MANIFEST_FILE, SAMPLES_FILE, Manifest, Training
from training import checkpoint, loop
from training.__main__ import EXIT_FAILED, build, main
from training.effort import KEY as EFFORT
from training.export import export
from training.graph import open_graph
from training.layers import as_bytes
from training.recipe import parse_recipe
from training.run import Run

COMMAND = "import sys; from training.__main__ import main; sys.exit(main(sys.argv[1:]))"
CPU = "CPUExecutionProvider"


class StopsAt:
    """A method that asks its own process to stop after some steps."""

    def __init__(self, method, at):
        self._method, self._at = method, at

    def __getattr__(self, name):
        return getattr(self._method, name)

    def step(self, draw, progress):
        scalars = self._method.step(draw, progress)
        if progress.step + 1 == self._at:
            signal.raise_signal(signal.SIGINT)
        return scalars


def train(recipe, run, stop_at=None):
    data = recipe.data.load("train")
    method = build(recipe, data)
    if not run.exists():
        run.create(recipe)
    loop.train(recipe, data, method if stop_at is None else StopsAt(method, stop_at), run)
    return method


def flat(value, prefix=""):
    if isinstance(value, dict):
        return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{prefix}{name}.").items()}
    return {prefix: value}


def assert_same_state(run, other):
    """Weights, optimisers, averages, pools and random numbers; the time that it took is never the same."""
    ours, theirs = (flat(checkpoint.load(r.state_file) | {EFFORT: None}) for r in (run, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        same = torch.equal(value, theirs[name]) if torch.is_tensor(value) else value == theirs[name]
        assert same, name


def test_stopped_or_killed_and_started_again_is_as_never_stopped(translating, tmp_path):
    whole, stopped, killed = (Run(tmp_path / name) for name in ("whole", "stopped", "killed"))
    train(translating, whole)
    with pytest.raises(loop.TrainingStopped):
        train(translating, stopped, stop_at=13)
    train(translating, stopped)
    assert_same_state(stopped, whole)

    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(translating.to_toml())
    command = [sys.executable, "-c", COMMAND, "train", str(recipe_file), "--run", str(killed.path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed.previews / "0000000080.png").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    train(translating, killed)
    assert_same_state(killed, whole)


@pytest.fixture
def adding(paired_tables):
    """A generator that adds to its source, by two distances, of data that are varied."""
    generator = {"architecture": "resnet", "base_channels": 2, "blocks": 1, "z_dim": 3, "residual": True}
    varied = {
        "jitter": ["channels", "mirror", "shift"],
        "reconstruction": [{"name": "l1", "weight": 10}, {"name": "structure", "weight": 1}],
    }
    return parse_recipe({**paired_tables, **varied, "generator": generator}, "the recipe")


def test_a_residual_generator_stopped_and_started_again_is_as_never_stopped(adding, tmp_path):
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    train(adding, whole)
    with pytest.raises(loop.TrainingStopped):
        train(adding, stopped, stop_at=13)
    train(adding, stopped)
    assert_same_state(stopped, whole)
    lines = [json.loads(line) for line in whole.metrics_file.read_text().splitlines()]
    assert all(line["loss/structure"] > 0 for line in lines)


def test_a_residual_generator_is_the_same_in_torch_and_in_the_bundle(adding, tmp_path):
    method, bundle, parity = written(adding, tmp_path)
    assert {result.size for result in parity} == {(16, 16), (4, 4), (12, 8), (20, 36)}
    assert all(result.holds for result in parity)
    sources = as_bytes(method.sources).numpy()
    made = translate_with(bundle)(sources, [0] * len(sources)).astype(int)
    expected = as_bytes(method.translate(method.sources)).numpy()
    assert np.abs(made - expected).max() <= 1
    assert not np.array_equal(made, sources)


def test_a_run_reports_and_shows_strips_of_held_out_items(translating, tmp_path):
    run = Run(tmp_path / "run")
    train(translating, run)
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert {"loss/discriminator", "loss/generator", "logits/real_above_fake"} <= lines[-1].keys()
    held_out = translating.data.load("test")
    first = held_out.batch(torch.tensor([0]))[0]
    (expected,) = as_bytes(first).numpy()
    with Image.open(run.sheets()[-1]) as opened:
        sheet = np.asarray(opened)
    assert np.array_equal(sheet[2:18, 2:18], expected)  # the input, and two strips further its target
    assert np.array_equal(sheet[2:18, 38:54], 255 - expected)


def written(recipe, folder, *, direction=None, **settings):
    recipe = recipe.lasting(0.04)
    method = train(recipe, Run(folder / "run"))
    if direction is None and method.directions:
        direction = method.directions[0]
    parity = export(
        recipe,
        method,
        folder / "models" / "tiny",
        bundle_version="1",
        images=9,
        training=Training(nimg=40),
        metrics={},
        direction=direction,
    )
    return method, folder / "models" / "tiny", parity


def translate_with(bundle):
    manifest = Manifest.read(bundle)
    run = open_graph(bundle / GENERATOR_FILE)

    def translate(images, seeds):
        z = {"z": draw(seeds, manifest.latent.z_dim)} if manifest.latent else {}
        return run({"image": images, **z})

    return translate


def test_a_bundle_says_what_it_takes_and_makes_its_golden_samples_again(translating, tmp_path):
    method, bundle, parity = written(translating, tmp_path)
    manifest = Manifest.read(bundle)
    assert manifest.task == "translate"
    assert manifest.input is not None
    generator = method.networks.get("generator") or method.networks["generator_ab"]
    assert (manifest.input.height, manifest.input.multiple_of) == (None, 4)
    assert manifest.input.halo == generator.halo
    assert manifest.input.background == (255, 255, 255)
    assert {result.size for result in parity} == {(16, 16), (4, 4), (12, 8), (20, 36)}
    check_graph((bundle / GENERATOR_FILE).read_bytes())
    content = (bundle / GOLDEN_FILE).read_bytes()
    report = check_golden_translations(manifest, content, translate_with(bundle), CPU)
    assert (report.result, report.checked, report.largest) == ("matches", 4, 0)
    with Image.open(bundle / SAMPLES_FILE) as sheet:
        assert sheet.height == 8 * 18 + 2


def test_another_answer_or_another_input_is_noticed(paired_tables, tmp_path):
    _, bundle, _ = written(parse_recipe(paired_tables, "the recipe"), tmp_path)
    manifest, content = Manifest.read(bundle), (bundle / GOLDEN_FILE).read_bytes()
    translate = translate_with(bundle)

    def brighter(images, seeds):
        return np.minimum(translate(images, seeds), 253) + np.uint8(2)

    with pytest.raises(InvalidBundle, match="golden samples"):
        check_golden_translations(manifest, content, brighter, CPU)
    wrong = manifest.golden[0].model_copy(update={"image_sha256": "0" * 64})
    changed = manifest.model_copy(update={"golden": (wrong, *manifest.golden[1:])})
    with pytest.raises(InvalidBundle, match="does not hold the images"):
        check_golden_translations(changed, content, translate, CPU)


def test_the_graph_takes_any_multiple_and_says_so_in_its_own_shapes(paired_tables, tmp_path):
    _, bundle, _ = written(parse_recipe(paired_tables, "the recipe"), tmp_path)
    session = onnxruntime.InferenceSession((bundle / GENERATOR_FILE).read_bytes())
    assert {node.name: node.shape for node in session.get_inputs()} == {
        "image": ["batch", "4*height", "4*width", 3],
        "z": ["batch", 3],
    }
    image = np.zeros((2, 40, 12, 3), np.uint8)
    assert session.run(["pixels"], {"image": image, "z": np.zeros((2, 3), np.float32)})[0].shape == (2, 40, 12, 3)


def test_a_graph_of_fixed_size_says_so(paired_tables, tmp_path):
    paired_tables["generator"]["sizes"] = "fixed"
    _, bundle, parity = written(parse_recipe(paired_tables, "the recipe"), tmp_path)
    manifest = Manifest.read(bundle)
    assert manifest.input is not None
    assert (manifest.input.height, manifest.input.width, manifest.input.halo) == (16, 16, None)
    assert {result.size for result in parity} == {(16, 16)}


def test_a_framing_generator_is_the_same_in_torch_and_in_the_bundle(unpaired_tables, tmp_path):
    unpaired_tables["generator"] |= {"architecture": "resnet", "residual": True, "framing": True, "sizes": "fixed"}
    method, bundle, parity = written(parse_recipe(unpaired_tables, "the recipe"), tmp_path, direction="ba")
    assert all(result.holds for result in parity)
    check_graph((bundle / GENERATOR_FILE).read_bytes())
    sources = method.examples["ba"].sources
    made = translate_with(bundle)(as_bytes(sources).numpy(), [0] * len(sources)).astype(int)
    assert np.abs(made - as_bytes(method.translate(sources, "ba")).numpy()).max() <= 1


def test_tiles_of_the_exported_graph_show_no_seam(unpaired_tables, tmp_path):
    _, bundle, _ = written(parse_recipe(unpaired_tables, "the recipe"), tmp_path)
    halo = Manifest.read(bundle).input.halo
    margin = -(-halo // 4) * 4
    run = open_graph(bundle / GENERATOR_FILE)
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64 + 2 * margin, 3), np.uint8)
    whole = run({"image": picture}).astype(int)
    left = run({"image": picture[:, :, : 32 + 2 * margin]})[:, :, : 32 + margin]
    right = run({"image": picture[:, :, 32:]})[:, :, margin:]
    assert np.abs(np.concatenate([left, right], 2) - whole).max() <= 1


def test_both_directions_become_bundles_and_a_missing_one_is_asked_for(unpaired_tables, tmp_path, caplog):
    recipe = parse_recipe(unpaired_tables, "the recipe")
    recipe_file, run = tmp_path / "tiny.toml", str(tmp_path / "run")
    recipe_file.write_text(recipe.to_toml())
    assert main(["train", str(recipe_file), "--run", run, "--set", "schedule.total_kimg=0.016"]) == 0
    assert main(["export", run, "--to", str(tmp_path / "models" / "x")]) == EXIT_FAILED
    assert "say --direction ab or ba" in caplog.text
    digests = set()
    for direction in ("ab", "ba"):
        bundle = tmp_path / "models" / direction
        assert main(["export", run, "--to", str(bundle), "--direction", direction]) == 0
        manifest = Manifest.read(bundle)
        assert manifest.direction == direction
        digests.add(manifest.sha256[GENERATOR_FILE])
    assert len(digests) == 2
    there = str(tmp_path / "models" / "ab")
    assert main(["evaluate", there, "--back", there]) == EXIT_FAILED
    assert "ab is no way back for ab" in caplog.text
    assert main(["export", run, "--to", there, "--direction", "up"]) == EXIT_FAILED
    assert "ab or ba, not up" in caplog.text
    assert json.loads((bundle / MANIFEST_FILE).read_text())["data"][0]["size"] == recipe.data.load("train").size
