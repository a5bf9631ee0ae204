"""Every bundle that is shipped loads, makes its golden samples again, and is small."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.bundle import Bundle
from service.files import read_file
from service.formats import FORMATS
from service.golden import MAX_BYTES
from service.latents import draw
from service.manifest import GENERATOR_FILE, GOLDEN_FILE, Manifest
from service.processes import Processes
from service.sample import Several
from service.translation import Translation, seed_for
from service.uploads import read_picture
from training.graph import Sampler, open_graph

MODELS = Path(__file__).parents[2] / "models"
DRAWINGS = sorted((Path(__file__).parent / "drawings").iterdir())
SHIPPED = sorted(path for path in MODELS.iterdir() if path.is_dir())
GENERATORS = [path for path in SHIPPED if Manifest.read(path).task == "generate"]
TRANSLATORS = [path for path in SHIPPED if Manifest.read(path).task == "translate"]
OF_ANY_SIZE = [path for path in TRANSLATORS if (source := Manifest.read(path).input) and source.height is None]


def golden_inputs(directory):
    """Held-out pictures that came with a translator, uint8 [N, height, width, channels]."""
    with np.load(io.BytesIO(read_file(directory, GOLDEN_FILE, max_bytes=MAX_BYTES))) as arrays:
        return arrays["images"]


def translated(bundle, picture, seed=None):
    """As /translate answers a file of this picture; uint8 [height, width, channels]."""
    content = FORMATS["png"].encode(picture, Several({}))
    seed = seed_for(bundle, seed)
    one = Translation.of(bundle, content, seed=seed, file_format=FORMATS["png"], max_pixels=2**24)
    file = one.file(bundle.batcher.submit(work).result().value for work in one.works())
    return read_picture(file, max_pixels=2**24).pixels


def test_something_is_shipped():
    assert SHIPPED


@pytest.mark.parametrize("directory", GENERATORS, ids=lambda path: path.name)
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
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) <= 25e6


def test_no_generator_is_shipped_twice():
    names = {}
    for directory in SHIPPED:
        names.setdefault(Manifest.read(directory).sha256[GENERATOR_FILE], []).append(directory.name)
    assert [same for same in names.values() if len(same) > 1] == []


@pytest.mark.parametrize("directory", TRANSLATORS, ids=lambda path: path.name)
def test_translator_loads_and_translates(directory):
    bundle = Bundle.load(directory)
    seed, changes = 1 if bundle.seeds else None, []
    for picture in golden_inputs(directory):
        made = translated(bundle, picture, seed)
        assert made.std() > 5  # something is on it
        assert made.shape[:2] == picture.shape[:2]
        changes.append(np.abs(made.astype(int) - picture).mean())
    assert min(changes) > 0.1  # and it is not what came
    assert np.mean(changes) > 1


@pytest.mark.parametrize("directory", TRANSLATORS, ids=lambda path: path.name)
def test_a_translation_does_not_depend_on_the_batch_it_shares(directory):
    bundle, run = Bundle.load(directory), open_graph(directory / GENERATOR_FILE)
    pictures = golden_inputs(directory)
    seeds, latent = list(range(len(pictures))), bundle.manifest.latent
    z = {} if latent is None else {"z": draw(seeds, latent.z_dim, latent.scheme)}
    together = run({"image": pictures, **z})
    for seed, picture, expected in zip(seeds, pictures, together, strict=True):
        made = translated(bundle, picture, seed if latent else None)
        assert np.array_equal(made, expected)


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda path: path.stem)
def test_a_drawing_by_hand_is_coloured_within_its_lines(drawing):
    """Not the lines that a detector found in a picture, which is what the network was trained on."""
    drawn = read_picture(drawing.read_bytes(), max_pixels=2**24).pixels
    made = translated(Bundle.load(MODELS / "edges-to-emoji"), drawn, seed=0).astype(int)
    paper = Image.fromarray(drawn[:, :, 0]).point(lambda level: 255 * (level > 128))
    ImageDraw.floodfill(paper, (0, 0), 1)  # what is around the drawing
    around = np.asarray(paper) == 1
    within = np.asarray(paper) == 255
    colour = made.max(2) - made.min(2)
    assert made[around].mean() > 235  # stays paper
    assert colour[within].mean() > 3 * colour[around].mean()
    assert colour[within].mean() > 30


@pytest.mark.parametrize("directory", OF_ANY_SIZE, ids=lambda path: path.name)
def test_tiles_of_a_large_picture_show_no_seam(directory):
    """Held-out pictures side by side and below one another, larger than a tile."""
    bundle, run = Bundle.load(directory), open_graph(directory / GENERATOR_FILE)
    source = bundle.manifest.input
    assert source is not None
    pictures = golden_inputs(directory)
    row = np.concatenate([*pictures, *pictures[::-1]], 1)
    sheet = np.tile(row, (1, 2, 1))[:61, :701]
    latent = bundle.manifest.latent
    z = {} if latent is None else {"z": draw([0], latent.z_dim, latent.scheme)}
    height, width = (-(-side // source.multiple_of) * source.multiple_of for side in sheet.shape[:2])
    padded = np.pad(sheet, ((0, height - sheet.shape[0]), (0, width - sheet.shape[1]), (0, 0)), "reflect")
    whole = run({"image": padded[None], **z})[0, : sheet.shape[0], : sheet.shape[1]]
    difference = np.abs(translated(bundle, sheet, 0 if latent else None).astype(int) - whole)
    assert difference.mean() <= 2
    assert difference.max() <= 2


@pytest.mark.parametrize("directory", GENERATORS, ids=lambda path: path.name)
def test_a_picture_does_not_depend_on_the_batch_it_shares(directory):
    bundle = Bundle.load(directory)
    assert bundle.manifest.latent is not None
    sampler = Sampler(open_graph(directory / GENERATOR_FILE), bundle.manifest.latent)
    seeds, num_classes = np.arange(33, dtype=np.uint64), len(bundle.manifest.classes or ("",))
    together = sampler(seeds, seeds.astype(np.int64) % num_classes)
    for seed, picture in zip(seeds.tolist(), together, strict=True):
        sample = bundle.sample(seed=seed, class_=seed % num_classes if bundle.manifest.classes else None)
        assert np.array_equal(bundle.picture(sample), picture)
