import logging

import pytest

from service.catalog import Catalog
from service.errors import NotReady, UnknownModel
from service.manifest import GENERATOR_FILE, MANIFEST_FILE


def test_serves_the_good_and_names_the_bad(tmp_path, plain, digits, make_bundle, caplog):
    (make_bundle("tampered") / GENERATOR_FILE).write_bytes(b"x")
    (make_bundle("bare") / MANIFEST_FILE).unlink()
    (tmp_path / "models" / "README.md").write_text("not a bundle")
    (tmp_path / "models" / ".cache").mkdir()
    catalog = Catalog.load(tmp_path / "models", provider="cpu")
    assert list(catalog.bundles) == ["digits", "plain"]
    assert sorted(catalog.refused) == ["bare", "tampered"]
    assert "sha256 of generator.onnx" in catalog.refused["tampered"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "bundle tampered is refused: sha256" in caplog.text


def test_an_unforeseen_failure_refuses_one_bundle(tmp_path, plain, digits, monkeypatch):
    def load(directory, **settings):
        raise RuntimeError("surprise")

    monkeypatch.setattr("service.bundle.Bundle.load", load)
    catalog = Catalog.load(tmp_path / "models")
    assert catalog.refused == {
        "digits": "unforeseen RuntimeError; the log has it",
        "plain": "unforeseen RuntimeError; the log has it",
    }


def test_no_path_is_told(tmp_path, make_bundle):
    (make_bundle("bare") / MANIFEST_FILE).unlink()
    assert str(tmp_path) not in Catalog.load(tmp_path / "models").refused["bare"]


@pytest.mark.parametrize("name", ["models", "nowhere"])
def test_no_bundles(tmp_path, name):
    (tmp_path / "models").mkdir()
    catalog = Catalog.load(tmp_path / name)
    assert catalog.why_empty() == "no bundle was found in the models directory (SERVICE_MODELS_DIR)"
    with pytest.raises(NotReady, match="no bundle was found"):
        catalog.get(None, task="generate")


def test_the_first_by_name_is_the_default(tmp_path, plain, digits):
    assert Catalog.load(tmp_path / "models").get(None, task="generate").name == "digits"
    assert Catalog.load(tmp_path / "models", default="plain").get(None, task="generate").name == "plain"


def test_a_default_that_is_not_there_is_said_at_once(tmp_path, plain, caplog):
    catalog = Catalog.load(tmp_path / "models", default="plane")
    assert "default model 'plane' is not among the bundles served: plain" in caplog.text
    with pytest.raises(UnknownModel, match="unknown model 'plane'; available: plain"):
        catalog.get(None, task="generate")


def test_an_unknown_model_lists_the_others(tmp_path, plain, digits):
    with pytest.raises(UnknownModel, match="unknown model 'digit'; available: digits, plain") as error:
        Catalog.load(tmp_path / "models").named("digit")
    assert error.value.choices == ["digits", "plain"]


def test_a_refused_model_says_why(tmp_path, plain):
    (plain / GENERATOR_FILE).write_bytes(b"x")
    with pytest.raises(NotReady, match="'plain' is not served: sha256"):
        Catalog.load(tmp_path / "models").named("plain")


def test_both_builds_of_onnx_runtime_are_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("service.catalog.conflicting_builds", lambda: ["onnxruntime 1", "onnxruntime-gpu 1"])
    with caplog.at_level(logging.ERROR):
        Catalog.load(tmp_path)
    assert "onnxruntime 1 and onnxruntime-gpu 1 are both installed" in caplog.text
