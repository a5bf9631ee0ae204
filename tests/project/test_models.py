"""Every bundle that is shipped loads, makes its golden samples again, and is small."""

from pathlib import Path

import numpy as np
import pytest

from service.bundle import Bundle
from service.manifest import GENERATOR_FILE, GOLDEN_FILE, Manifest
from service.processes import Processes
from training.graph import Sampler, open_graph

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = sorted(path for path in MODELS.iterdir() if path.is_dir())


def test_something_is_shipped():
    assert SHIPPED


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_bundle_loads(directory):
    bundle = Bundle.load(directory)
    for label in range(len(bundle.manifest.classes or ("",))):
        picture = bundle.picture(bundle.sample(seed=1, class_=label if bundle.manifest.classes else None))
        assert picture.std() > 5  # something is on it


def test_a_service_that_trusts_nobody_serves_them():
    engine = Processes(1, "cpu", trial_seconds=60, trial_bytes=4 * 2**30)
    for directory in SHIPPED:
        assert Bundle.load(directory, engine=engine).golden.result != "untested"
    engine.close()


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_bundle_says_how_good_it_is_and_where_it_comes_from(directory):
    manifest = Manifest.read(directory)
    assert manifest.golden
    assert manifest.golden_made_on
    assert GOLDEN_FILE in manifest.sha256
    assert manifest.metrics
    assert all(source.licence != "unstated" for source in manifest.data)
    assert all(metric.judge is None or metric.judge in name for name, metric in manifest.metrics.items())


def test_all_bundles_together_stay_small():
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 40e6


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_a_picture_does_not_depend_on_the_batch_it_shares(directory):
    bundle = Bundle.load(directory)
    assert bundle.manifest.latent is not None
    sampler = Sampler(open_graph(directory / GENERATOR_FILE), bundle.manifest.latent)
    seeds, num_classes = np.arange(33, dtype=np.uint64), len(bundle.manifest.classes or ("",))
    together = sampler(seeds, seeds.astype(np.int64) % num_classes)
    for seed, picture in zip(seeds.tolist(), together, strict=True):
        sample = bundle.sample(seed=seed, class_=seed % num_classes if bundle.manifest.classes else None)
        assert np.array_equal(bundle.picture(sample), picture)
