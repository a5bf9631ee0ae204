import hashlib
import json

import numpy as np
import pytest

from service.bundle import Bundle
from service.errors import InvalidBundle, InvalidLatent, InvalidValue
from service.latents import draw
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, SAMPLES_FILE


def test_a_picture_is_a_function_of_its_sample(digits, digits_bundle, generator_of):
    sample = digits_bundle.sample(seed=7, class_="two", truncation=0.5)
    feed = {"z": draw([7], 4), "y": np.array([2]), "psi": np.array([0.5], np.float32)}
    expected = generator_of(digits).run(feed)[0]
    np.testing.assert_array_equal(digits_bundle.picture(sample), expected)
    np.testing.assert_array_equal(digits_bundle.picture(sample), expected)


def test_a_class_goes_by_name_or_index(digits_bundle):
    by_name = digits_bundle.sample(seed=1, class_="one")
    assert by_name == digits_bundle.sample(seed=1, class_=1)
    assert (by_name.label, by_name.class_name) == (1, "one")


def test_a_digit_in_quotes_is_a_name(make_bundle):
    bundle = Bundle.load(make_bundle("swapped", graph={"num_classes": 2}, classes=["1", "0"]))
    assert bundle.sample(class_="1").label == 0
    assert bundle.sample(class_=1).label == 1


@pytest.mark.parametrize("class_", [None, "three", "1", 3, -1])
def test_a_class_that_is_not_there_lists_those_that_are(digits_bundle, class_):
    with pytest.raises(InvalidValue, match="zero, one, two, or an index from 0 to 2") as error:
        digits_bundle.sample(seed=1, class_=class_)
    assert error.value.pointer == "/class"
    assert error.value.choices == ["zero", "one", "two"]


def test_many_classes_are_not_all_recited(make_bundle):
    names = [f"c{i}" for i in range(100)]
    bundle = Bundle.load(make_bundle("many", graph={"num_classes": 100}, classes=names))
    with pytest.raises(InvalidValue, match=r"c19, \.\.\. \(100 in all\)"):
        bundle.sample()


def test_an_unconditional_bundle_takes_no_class(plain_bundle):
    assert plain_bundle.sample(seed=1).label is None
    with pytest.raises(InvalidValue, match="knows no classes"):
        plain_bundle.sample(seed=1, class_=0)


def test_truncation_is_for_graphs_that_know_it(plain_bundle):
    assert plain_bundle.sample(seed=1, truncation=1).truncation == 1
    with pytest.raises(InvalidValue, match="knows no truncation"):
        plain_bundle.sample(seed=1, truncation=0.9)


def test_draws_a_seed_if_there_is_none(plain_bundle):
    assert plain_bundle.sample().seed != plain_bundle.sample().seed


def test_the_scheme_bounds_the_seed(make_bundle):
    bundle = Bundle.load(make_bundle("old", latent={"z_dim": 4, "scheme": "stylegan"}))
    with pytest.raises(InvalidLatent, match="0 to 4294967295"):
        bundle.picture(bundle.sample(seed=2**32))


def test_golden_samples_are_made_again(make_bundle):
    assert Bundle.load(make_bundle("none")).golden.result == "untested"
    bundle = Bundle.load(make_bundle("model"))
    digest = hashlib.sha256(bundle.picture(bundle.sample(seed=5)).tobytes()).hexdigest()
    golden = {"seed": 5, "label": None, "pixels_sha256": digest}
    assert Bundle.load(make_bundle("good", golden=[golden])).golden.result == "matches"
    assert Bundle.load(make_bundle("off", golden=[golden, {**golden, "seed": 6}])).golden.result == "differs"


def test_golden_labels_must_exist(make_bundle):
    with pytest.raises(InvalidBundle, match="has label 4, of 0 classes"):
        Bundle.load(make_bundle("odd", golden=[{"seed": 5, "label": 4, "pixels_sha256": "0" * 64}]))


def rename(directory):
    directory.rename(directory.with_name("other"))
    return directory.with_name("other")


def flip_a_byte(directory):
    content = bytearray((directory / GENERATOR_FILE).read_bytes())
    content[100] ^= 1
    (directory / GENERATOR_FILE).write_bytes(content)


def lose_a_file(directory):
    (directory / SAMPLES_FILE).unlink()


def make_a_file_a_directory(directory):
    (directory / SAMPLES_FILE).unlink()
    (directory / SAMPLES_FILE).mkdir()


def link_out(directory):
    outside = directory.parent.parent / "outside.png"
    (directory / SAMPLES_FILE).rename(outside)
    (directory / SAMPLES_FILE).symlink_to(outside)


def cut_the_manifest(directory):
    text = (directory / MANIFEST_FILE).read_text()
    (directory / MANIFEST_FILE).write_text(text[: len(text) // 2])


def enhance(directory):
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    manifest |= {"task": "enhance", "input": manifest["output"]}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rename, "name is 'plain'; it must be the directory's"),
        (flip_a_byte, r"sha256 of generator\.onnx is"),
        (lose_a_file, r"cannot read samples\.png: No such file"),
        (make_a_file_a_directory, "not a regular file"),
        (link_out, "link out of the bundle"),
        (cut_the_manifest, "is invalid at"),
        (enhance, "task 'enhance' is not served; served: generate, translate"),
    ],
)
def test_refuses_what_is_not_what_it_says(plain, spoil, message):
    with pytest.raises(InvalidBundle, match=message):
        Bundle.load(spoil(plain) or plain)


def test_links_within_the_bundle_are_fine(plain):
    (plain / SAMPLES_FILE).rename(plain / "data.png")
    (plain / SAMPLES_FILE).symlink_to("data.png")
    assert Bundle.load(plain).samples_png == b"not looked at"
