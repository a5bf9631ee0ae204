import json
import logging
import os
import re
import shutil
import time

import pytest

from service.catalog import Catalog
from service.engine import Here
from service.errors import NotReady, UnknownModel
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, Manifest


def test_serves_the_good_and_names_the_bad(tmp_path, plain, digits, make_bundle, caplog):
    (make_bundle("tampered") / GENERATOR_FILE).write_bytes(b"x")
    (make_bundle("bare") / MANIFEST_FILE).unlink()
    (tmp_path / "models" / "README.md").write_text("not a bundle")
    (tmp_path / "models" / ".cache").mkdir()
    catalog = Catalog.load(tmp_path / "models")
    assert list(catalog.bundles) == ["digits", "plain"]
    assert sorted(catalog.refused) == ["bare", "tampered"]
    assert "sha256 of generator.onnx" in catalog.refused["tampered"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "bundle tampered is refused: sha256" in caplog.text


def test_an_unforeseen_failure_refuses_one_bundle(tmp_path, plain, digits, caplog):
    class Surprising(Here):
        def open(self, directory, manifest):
            if manifest.name == "digits":
                raise RuntimeError("surprise")
            return super().open(directory, manifest)

    catalog = Catalog.load(tmp_path / "models", engine=Surprising())
    assert list(catalog.bundles) == ["plain"]
    assert catalog.refused == {"digits": "unforeseen RuntimeError; the log has it"}
    assert "RuntimeError: surprise" in caplog.text


def test_bundles_stand_in_the_order_of_their_names_however_long_they_take(tmp_path, make_bundle):
    names = [f"bundle-{i}" for i in range(6)]
    for name in names:
        make_bundle(name)

    class Slow(Here):
        def open(self, directory, manifest):
            time.sleep(0.05 if manifest.name < "bundle-2" else 0)
            return super().open(directory, manifest)

    assert list(Catalog.load(tmp_path / "models", engine=Slow()).bundles) == names


@pytest.mark.parametrize("name", ["A", "a b", "-a", "x" * 65, "zwei\nzeilen", "überall", os.fsdecode(b"\xff"), "..."])
def test_a_directory_whose_name_none_may_have(tmp_path, plain, name, refusal, serve):
    if name != "...":  # hidden, like all names that begin with a dot
        shutil.copytree(plain, plain.with_name(name))
        assert "name is none for a bundle" in refusal()
    with serve() as client:
        assert client.get("/readyz").status_code == 200
        assert all(refused["name"].isprintable() for refused in client.get("/models").json()["refused"])
        assert client.get("/metrics").status_code == 200


def test_what_a_reason_quotes_forges_no_line_of_the_log(make_bundle, refusal, caplog):
    directory = make_bundle("evil")
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest | {"\nERROR all is well\x1b[2J" + "x" * 9999: 1}))
    reason = refusal()
    assert reason.isprintable()
    assert len(reason) < 600
    assert "\nERROR all is well" not in caplog.text


@pytest.mark.parametrize("target", ["outside", "nowhere", "loop"])
def test_a_link_is_a_bundle_only_if_it_stays_in_the_directory(tmp_path, make_bundle, target, refusal):
    if target == "outside":
        make_bundle("loop").rename(tmp_path / "outside")
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "loop").symlink_to(target if target == "loop" else tmp_path / target)
    reason = refusal()
    assert {
        "outside": "link out of the models directory",
        "nowhere": "No such file or directory",
        "loop": "symbolic links",
    }[target] in reason


def test_a_bundle_that_goes_while_it_is_loaded(tmp_path, plain, digits):
    class Late(Here):
        def open(self, directory, manifest):
            opened = super().open(directory, manifest)
            shutil.rmtree(directory)
            return opened

    assert list(Catalog.load(tmp_path / "models", engine=Late()).bundles) == ["digits", "plain"]
    assert Catalog.load(tmp_path / "models").why_empty().startswith("no bundle was found")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_bundle_that_may_not_be_read(make_bundle, refusal):
    directory = make_bundle("secret")
    directory.chmod(0)
    try:
        assert "Permission denied" in refusal()
    finally:
        directory.chmod(0o700)


def test_no_path_is_told(tmp_path, make_bundle):
    (make_bundle("bare") / MANIFEST_FILE).unlink()
    assert str(tmp_path) not in Catalog.load(tmp_path / "models").refused["bare"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models", "no bundle was found in the models directory (SERVICE_MODELS_DIR)"),
        ("nowhere", "the models directory (SERVICE_MODELS_DIR) cannot be listed: No such file or directory"),
        ("file", "the models directory (SERVICE_MODELS_DIR) cannot be listed: Not a directory"),
    ],
)
def test_no_bundles(tmp_path, name, message):
    (tmp_path / "models").mkdir()
    (tmp_path / "file").touch()
    catalog = Catalog.load(tmp_path / name)
    assert catalog.why_empty() == message
    with pytest.raises(NotReady, match=re.escape(message)):
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


def test_what_may_be_a_refused_model_is_not_called_unknown(make_bundle, tmp_path, fixed):
    broken = make_bundle("broken")
    digest = Manifest.read(broken).digest[:16]
    (broken / GENERATOR_FILE).write_bytes(b"x")
    catalog = Catalog.load(tmp_path / "models")
    for ask in (lambda: catalog.get(None, task="generate"), lambda: catalog.of_digest(digest)):
        with pytest.raises(NotReady, match="refused: broken: sha256") as error:
            ask()
        assert not error.value.headers  # to ask again helps nobody
    with pytest.raises(UnknownModel, match="GET /models lists what they do") as error:
        Catalog({"fixed": catalog.bundles["fixed"]}).get(None, task="generate")
    assert error.value.choices == []


def test_a_bundle_under_two_names_is_found_by_the_one_that_is_meant(make_bundle, tmp_path):
    digest = {Manifest.read(make_bundle(name)).digest for name in ("one", "two")}
    catalog = Catalog.load(tmp_path / "models")
    assert [catalog.of_digest(*digest, name).name for name in ("one", "two", "three", None)] == [
        "one", "two", "one", "one",
    ]  # fmt: skip


def test_both_builds_of_onnx_runtime_are_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("service.catalog.conflicting_builds", lambda: ["onnxruntime 1", "onnxruntime-gpu 1"])
    with caplog.at_level(logging.ERROR):
        Catalog.load(tmp_path)
    assert "onnxruntime 1 and onnxruntime-gpu 1 are both installed" in caplog.text
