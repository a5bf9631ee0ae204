"""Train a step, export, serve, decode the picture: the whole way, in process."""

import io
import time

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.lifecycle import Lifecycle
from service.manifest import Training
from service.settings import Settings
from service.telemetry import Metrics
from training.__main__ import RECIPES, build
from training.datasets import Pictures
from training.export import export
from training.graph import Sampler, open_graph
from training.layers import as_bytes
from training.methods import Progress
from training.recipe import read_recipe


@pytest.fixture
def trained():
    recipe = read_recipe(RECIPES / "fashion.toml")
    pixels = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    data = Pictures(pixels, torch.arange(20) % 10, tuple("abcdefghij"))
    method = build(recipe, data)
    method.step(lambda: data.batch(torch.arange(20)), Progress(0, 1000, 20))
    return recipe, method


def test_from_a_training_step_to_a_picture_over_http(trained, tmp_path):
    recipe, method = trained
    export(recipe, method, tmp_path / "fresh", bundle_version="1", images=20, training=Training(nimg=20), metrics={})
    lifecycle = Lifecycle(Settings(models_dir=tmp_path), Metrics())
    with TestClient(create_app(lifecycle)) as client:
        while "being loaded" in client.get("/readyz").text:
            time.sleep(0.05)
        reply = client.post("/generate", json={"seed": 42, "class": "c"})
    assert reply.status_code == 200
    served = np.asarray(Image.open(io.BytesIO(reply.content)))
    assert served.shape == (28, 28)
    # Identical to ONNX Runtime in process, and within a level of torch before export.
    latent = method.graph().latent
    sampler = Sampler(open_graph(tmp_path / "fresh" / "generator.onnx"), latent)
    (bare,) = sampler(np.array([42], np.uint64), np.array([2]))
    assert np.array_equal(served, bare[:, :, 0])
    (torch_picture,) = as_bytes(method.sample([42], [2])).numpy()
    assert np.abs(served.astype(int) - torch_picture[:, :, 0]).max() <= 1
