import json

import pytest

from service.errors import InvalidBundle
from service.manifest import MANIFEST_FILE, Manifest, file_sha256


def change(directory, **members):
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def test_survives_a_round_trip(digits):
    manifest = Manifest.read(digits)
    (digits / MANIFEST_FILE).write_text(manifest.to_json())
    assert Manifest.read(digits) == manifest


def test_lists_the_hash_of_every_file(plain):
    for name, sha256 in Manifest.read(plain).sha256.items():
        assert file_sha256(plain / name) == sha256


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": "../up"}, "name"),
        ({"sha256": {}}, "does not list generator.onnx"),
        ({"latent": None}, "needs a latent"),
        ({"classes": ["a", "a"]}, "twice"),
        ({"schema_version": 2}, "schema_version"),
        ({"training": {"nimg": -1}}, "training.nimg"),
        ({"limitations": ["two\nlines"]}, "limitations.0"),
    ],
)
def test_refuses_what_breaks_the_schema(plain, members, message):
    change(plain, **members)
    with pytest.raises(InvalidBundle, match=message):
        Manifest.read(plain)


def test_says_when_there_is_none(tmp_path):
    with pytest.raises(InvalidBundle, match=r"cannot read manifest\.json: No such file"):
        Manifest.read(tmp_path)


def test_a_bundle_from_before_training_was_described_still_loads(plain):
    path = plain / MANIFEST_FILE
    members = json.loads(path.read_text())
    del members["training"], members["limitations"]
    path.write_text(json.dumps(members))
    manifest = Manifest.read(plain)
    assert (manifest.training, manifest.limitations) == (None, ())


def test_digest_follows_the_pictures_and_not_the_prose(plain):
    digest = Manifest.read(plain).digest
    change(plain, licence="MIT", recipe={"a": 1}, limitations=["Hands."], training={"nimg": 9})
    assert Manifest.read(plain).digest == digest
    change(plain, latent={"z_dim": 4, "scheme": "stylegan"})
    assert Manifest.read(plain).digest != digest
