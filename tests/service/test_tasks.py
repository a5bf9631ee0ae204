import hashlib
import json
import typing

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError

from service.bundle import Bundle
from service.errors import InvalidBundle
from service.golden import save_pixels, this_hardware
from service.manifest import GOLDEN_FILE, MANIFEST_FILE, Manifest, Task, file_sha256
from service.tasks import TASKS, task_of
from service.tasks.translate import MAX_BATCH_PIXELS

CPU = "CPUExecutionProvider"
TASK_NAMES = typing.get_args(Task)


def images(rows, height, width):
    return np.random.default_rng(3).integers(0, 256, (rows, height, width, 3), np.uint8)


def sha256(picture):
    return hashlib.sha256(picture.tobytes()).hexdigest()


def test_every_task_has_its_name():
    assert set(TASKS) <= set(TASK_NAMES)


def test_a_translator_takes_pictures_and_z(fixed, any_size, generator_of):
    with_z, without = generator_of(fixed), generator_of(any_size)
    assert with_z.task.feed(images(2, 8, 8), [1, 2]).keys() == {"image", "z"}
    assert without.task.feed(images(2, 8, 8), [None, None]).keys() == {"image"}
    assert with_z.run(with_z.task.feed(images(2, 8, 8), [1, 2])).shape == (2, 8, 8, 3)
    assert without.run(without.task.feed(images(3, 12, 40), [None] * 3)).shape == (3, 12, 40, 3)


def test_z_and_the_picture_reach_the_graph(fixed, generator_of):
    generator = generator_of(fixed)
    first, second = images(2, 8, 8)
    made = [
        generator.run(generator.task.feed(image[None], [seed])).tobytes()
        for image, seed in [(first, 1), (first, 2), (second, 1), (first, 1)]
    ]
    assert made[0] == made[3]
    assert len(set(made)) == 3


def test_rows_are_measured_at_two_sizes_where_any_is_taken(any_size, generator_of):
    generator = generator_of(any_size)
    assert generator.measured.determinism == "exact; batch=free"
    sizes = [trial.feed["image"].shape[1:3] for trial in generator.task.trials()]
    assert sizes == [(32, 36), (96, 96)]
    assert generator.task.largest == (272, 272)
    assert generator.task.max_pixels == MAX_BATCH_PIXELS


def test_a_batch_takes_one_picture_however_large(fixed):
    manifest = Manifest.read(fixed)
    size = {"height": 4096, "width": 4096}
    large = {name: getattr(manifest, name).model_copy(update=size) for name in ("input", "output")}
    assert task_of(manifest.model_copy(update=large)).max_pixels == 4096**2


def moody(size):
    """The number of rows is added to the picture, if it is as wide as that, or if `size` is None."""
    n = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Shape", ["image"], ["rows"], start=0, end=1),
        helper.make_node("Cast", ["rows"], ["some"], to=TensorProto.UINT8),
        helper.make_node("Shape", ["image"], ["width"], start=2, end=3),
        helper.make_node("Equal", ["width", "size"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["counts"], to=TensorProto.UINT8),
        helper.make_node("Mul", ["some", "counts"], ["mood"]),
        helper.make_node("Add", ["image", "mood"], ["pixels"]),
    ]
    shape = ["N", "4*h", "4*w", 3]
    graph = helper.make_graph(
        nodes,
        "moody",
        [n("image", TensorProto.UINT8, shape)],
        [n("pixels", TensorProto.UINT8, shape)],
        [helper.make_tensor("size", TensorProto.INT64, [1], [size])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("width", [36, 96])
def test_rows_that_company_changes_at_one_size_only_are_run_alone(make_bundle, generator_of, width):
    any_size = {"height": None, "width": None, "channels": 3, "multiple_of": 4}
    directory = make_bundle(
        "moody", graph=moody(width), task="translate", latent=None, input={**any_size, "halo": 7}, output=any_size
    )
    generator = generator_of(directory)
    assert generator.measured.determinism == "exact; batch=1"
    pictures = images(3, 4, width) // 2
    np.testing.assert_array_equal(generator.run({"image": pictures}), pictures + 1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"latent": None}, "inputs are image, z; the manifest implies image$"),
        ({"latent": {"z_dim": 5}}, r"z has shape \['N', 4\]; the manifest implies \['N', 5\]"),
        ({"latent": {"z_dim": 4, "truncation": "z"}}, "neither classes nor truncation"),
        ({"classes": ["a", "b"]}, "neither classes nor truncation"),
        ({"input": {"height": 16, "width": 8, "channels": 3}}, "image has shape"),
        ({"input": {"height": 8, "width": 8, "channels": 1}}, "image has shape"),
        ({"output": {"height": 8, "width": 16, "channels": 3}}, "pixels has shape"),
        ({"output": {"height": None, "width": None, "channels": 3}}, "both have a height and a width"),
    ],
)
def test_refuses_a_translator_that_is_not_what_the_manifest_says(make_bundle, translators, members, message):
    with pytest.raises(InvalidBundle, match=message):
        Bundle.load(make_bundle("wrong", **{**translators["fixed"], **members}))


def test_a_graph_of_one_size_does_not_take_any(make_bundle, translators):
    members = {key: value for key, value in translators["any"].items() if key != "graph"}
    graph = translators["fixed"]["graph"]
    with pytest.raises(InvalidBundle, match=r"image has shape \['N', 8, 8, 3\]; the manifest implies"):
        Bundle.load(make_bundle("wrong", graph=graph, **{**members, "latent": {"z_dim": 4}}))


def test_tiles_that_are_too_large_to_be_run_at_once_are_refused(make_bundle, translators):
    members = {**translators["any"], "input": {**translators["any"]["input"], "halo": 2000}}
    with pytest.raises(InvalidBundle, match=r"with a halo of 2000 .* a tile is 4256 x 4256; at most 2097152 pixels"):
        Bundle.load(make_bundle("wide", **members))


def test_a_size_that_is_no_multiple_of_what_is_taken_is_refused(make_bundle, translators):
    members = {**translators["fixed"], "input": {**translators["fixed"]["input"], "multiple_of": 3}}
    with pytest.raises(ValidationError, match="height and width are no multiples of multiple_of"):
        make_bundle("odd", **members)


def test_a_graph_that_fails_on_what_it_should_take_is_refused(make_bundle, translators):
    members = {**translators["any"], "input": {**translators["any"]["input"], "multiple_of": 3}}
    with pytest.raises(InvalidBundle, match="warming up: the generator failed"):
        Bundle.load(make_bundle("odd", **members))


def test_a_graph_whose_output_has_another_size_is_refused(make_bundle, translators):
    graph = onnx.ModelProto()
    graph.CopyFrom(translators["any"]["graph"])
    (enlarge,) = [tensor for tensor in graph.graph.initializer if tensor.name == "enlarge"]
    enlarge.CopyFrom(helper.make_tensor("enlarge", TensorProto.FLOAT, [4], [1, 1, 2, 2]))
    with pytest.raises(InvalidBundle, match=r"gave pixels \[8, 64, 72, 3\], not \[8, 32, 36, 3\]"):
        Bundle.load(make_bundle("large", **{**translators["any"], "graph": graph}))


@pytest.fixture
def with_golden(fixed, generator_of):
    """The translator with golden samples as export writes them, but for a shift of their levels."""

    def make(*, shift=0, made_on=None):
        generator, pictures, seeds = generator_of(fixed), images(3, 8, 8), [0, 1, 2]
        pixels = generator.run(generator.task.feed(pictures, seeds))
        pixels[1, 0, 0, 0] += shift
        save_pixels(fixed / GOLDEN_FILE, pixels, pictures)
        manifest = json.loads((fixed / MANIFEST_FILE).read_text())
        manifest["sha256"][GOLDEN_FILE] = file_sha256(fixed / GOLDEN_FILE)
        manifest["golden"] = [
            {"seed": seed, "image_sha256": sha256(picture), "pixels_sha256": sha256(made)}
            for seed, picture, made in zip(seeds, pictures, pixels, strict=True)
        ]
        manifest["golden_made_on"] = None if made_on is None else made_on.model_dump()
        (fixed / MANIFEST_FILE).write_text(Manifest.model_validate(manifest).to_json())
        return fixed

    return make


def test_golden_translations_are_made_again(with_golden):
    report = Bundle.load(with_golden()).golden
    assert (report.result, report.checked, report.largest) == ("matches", 3, 0)


def test_a_golden_translation_that_differs_is_measured_or_refused(with_golden):
    assert Bundle.load(with_golden(shift=2)).golden.largest == 2
    with pytest.raises(InvalidBundle, match="golden samples: 3 made again on the same hardware: differs"):
        Bundle.load(with_golden(shift=2, made_on=this_hardware(CPU)))
