import base64
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.archives import ARCHIVES, class_folders, contact_sheet, keyed_member, tar_of
from service.errors import TooLarge
from service.formats import FORMATS
from service.pieces import Pieces
from service.plan import Plan, Ranges

ROOT = Path(__file__).parents[2]
MILLIONS = 16 * 2**20


def made(name, plan, picture="png", max_pixels=MILLIONS):
    """The bytes of an archive, as a server makes them."""
    archive = ARCHIVES[name](plan, FORMATS[picture], max_pixels=max_pixels)
    return b"".join(archive.write(Pieces(plan.bundle.batcher, plan.works(archive.packing))))


def pictures_of(plan):
    """What `/generate` shows for each sample of a plan: pixels made alone, past the queue."""
    return np.stack([plan.bundle.picture(plan[index]) for index in range(len(plan))])


def decoded(file, channels):
    return np.asarray(Image.open(io.BytesIO(file))).reshape(8, 8, channels)


@pytest.fixture
def plan(digits_bundle):
    return Plan.of(digits_bundle, first_seed=7, classes={"two": 40, "zero": 3}, truncation=0.7)


def test_a_tar_is_what_webdataset_reads(plan):
    with tarfile.open(fileobj=io.BytesIO(made("tar", plan))) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = [f"{index:08d}" for index in range(43)]
    assert list(members) == [f"{key}.{part}" for key in keys for part in ("png", "cls", "json")]
    np.testing.assert_array_equal(np.stack([decoded(members[f"{key}.png"], 1) for key in keys]), pictures_of(plan))
    assert [int(members[f"{key}.cls"]) for key in keys] == [2] * 40 + [0] * 3
    assert [json.loads(members[f"{key}.json"]) for key in keys] == [plan[i].to_dict() for i in range(43)]


@given(st.integers(0, 10**12), st.sampled_from(["png", "cls", "json", "jpg"]), st.binary(max_size=2000))
def test_a_keyed_member_is_the_one_that_tarfile_writes(index, extension, content):
    key = f"{index:08d}"
    assert next(tar_of([(f"{key}.{extension}", content)])) == keyed_member(key, extension, content)


def test_without_classes_a_tar_has_no_labels(plain_bundle):
    with tarfile.open(fileobj=io.BytesIO(made("tar", Plan.of(plain_bundle, count=1), picture="webp"))) as tar:
        assert tar.getnames() == ["00000000.webp", "00000000.json"]


def test_a_zip_is_what_image_folder_readers_read(plan):
    with zipfile.ZipFile(io.BytesIO(made("zip", plan))) as container:
        assert container.testzip() is None
        names = container.namelist()
        files = [container.read(name) for name in names]
    assert names == [f"{'two' if index < 40 else 'zero'}/{index:08d}.png" for index in range(43)]
    np.testing.assert_array_equal(np.stack([decoded(file, 1) for file in files]), pictures_of(plan))
    assert json.loads(Image.open(io.BytesIO(files[41])).text["ganery"]) == plan[41].to_dict()


def test_without_classes_a_zip_is_one_folder(plain_bundle):
    with zipfile.ZipFile(io.BytesIO(made("zip", Plan.of(plain_bundle, count=2), picture="jpeg"))) as container:
        assert container.namelist() == ["00000000.jpg", "00000001.jpg"]


def test_an_npz_is_read_without_pickle(plan):
    with np.load(io.BytesIO(made("npz", plan)), allow_pickle=False) as arrays:
        assert set(arrays) == {"pixels", "seeds", "labels", "model"}
        np.testing.assert_array_equal(arrays["pixels"], pictures_of(plan))
        assert (arrays["seeds"].dtype, arrays["seeds"].tolist()) == (np.uint64, list(range(7, 50)))
        assert (arrays["labels"].dtype, arrays["labels"].tolist()) == (np.int64, [2] * 40 + [0] * 3)
        model = json.loads(str(arrays["model"]))
    assert model == {
        "model": "digits",
        "version": "1",
        "digest": plan.bundle.manifest.digest,
        "truncation": 0.7,
        "classes": ["zero", "one", "two"],
    }


@pytest.mark.parametrize("name", ARCHIVES)
def test_it_is_the_same_file_however_its_pictures_share_batches(plain_bundle, monkeypatch, name):
    plan = Plan.of(plain_bundle, first_seed=0, count=1000)
    files = set()
    for rows in (5, 32):
        monkeypatch.setattr(plain_bundle.batcher, "max_rows", rows)
        files.add(made(name, plan))
    assert len(files) == 1


def test_an_npz_holds_every_seed_there_is(plain_bundle):
    plan = Plan.of(plain_bundle, seeds=Ranges([range(2**64 - 1, 2**64), range(1)]))
    with np.load(io.BytesIO(made("npz", plan)), allow_pickle=False) as arrays:
        assert arrays["seeds"].tolist() == [2**64 - 1, 0]
        assert "labels" not in arrays


@pytest.mark.parametrize("picture", ["png", "webp"])
def test_json_holds_each_sample_and_its_file(plan, picture):
    samples = json.loads(made("json", plan, picture))["samples"]
    files = [base64.b64decode(sample.pop("image")) for sample in samples]
    np.testing.assert_array_equal(
        np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("L"))[..., None] for file in files]),
        pictures_of(plan),
    )
    assert samples == [{**plan[i].to_dict(), "media_type": f"image/{picture}"} for i in range(43)]


def test_a_sheet_shows_all_and_says_which(plan):
    picture = Image.open(io.BytesIO(made("sheet", plan)))
    np.testing.assert_array_equal(np.asarray(picture)[..., None], contact_sheet(pictures_of(plan)))
    assert json.loads(picture.text["ganery"]) == {"sheet": [plan[i].id for i in range(43)]}


def test_a_sheet_has_as_many_pixels_as_it_may_and_the_rest_has_no_limit(plain_bundle):
    plan = Plan.of(plain_bundle, count=3)
    made("sheet", plan, max_pixels=3 * 64)
    with pytest.raises(TooLarge, match="ask for 2 at most, or for a tar"):
        made("sheet", plan, max_pixels=3 * 64 - 1)
    made("tar", plan, max_pixels=1)


@pytest.mark.parametrize(
    ("count", "height", "width", "rows", "columns"),
    [
        (1, 2, 3, 1, 1),
        (4, 2, 2, 2, 2),
        (5, 2, 2, 2, 3),
        (7, 2, 2, 3, 3),
        (6, 2, 8, 3, 2),
        (6, 8, 2, 2, 5),
        (3, 8, 1, 1, 3),
    ],
)
def test_pictures_lie_row_by_row_on_white(count, height, width, rows, columns):
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, height, width, 3), np.uint8)
    sheet = contact_sheet(pixels)
    assert sheet.shape == (rows * height, columns * width, 3)
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        cell = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (cell == (index if index < count else 255)).all()


@pytest.mark.slow
def test_a_zip_may_have_more_members_than_the_old_format_counts(plain_bundle):
    plan = Plan.of(plain_bundle, first_seed=0, count=70_000)
    archive = ARCHIVES["zip"](plan, FORMATS["png"], max_pixels=1)
    pieces = [[(f"{index:08d}.png", b"x") for index in range(70_000)]]
    with zipfile.ZipFile(io.BytesIO(b"".join(archive.write(pieces)))) as container:
        assert len(container.namelist()) == 70_000
        assert container.read("00069999.png") == b"x"


def test_no_archive_ends_when_a_piece_is_missing(plan):
    def broken():
        yield first
        raise RuntimeError("broken")

    for name in ARCHIVES:
        archive = ARCHIVES[name](plan, FORMATS["png"], max_pixels=MILLIONS)
        (first, *_) = Pieces(plan.bundle.batcher, plan.works(archive.packing))
        with pytest.raises(RuntimeError, match="broken"):
            b"".join(archive.write(broken()))


IN_ANOTHER_PROCESS = """
import hashlib, sys
from pathlib import Path
from service.archives import ARCHIVES
from service.bundle import Bundle
from service.formats import FORMATS
from service.plan import Plan
from service.pieces import Pieces

plan = Plan.of(Bundle.load(Path(sys.argv[1])), first_seed=0, count=50, truncation=0.9)
for name, kind in ARCHIVES.items():
    archive = kind(plan, FORMATS["png"], max_pixels=2**24)
    content = b"".join(archive.write(Pieces(plan.bundle.batcher, plan.works(archive.packing))))
    print(name, hashlib.sha256(content).hexdigest())
"""


def test_the_same_request_is_the_same_bytes_in_every_process_and_time_zone(digits):
    def hashes(zone, seed):
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", IN_ANOTHER_PROCESS, digits]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    here = hashes("Pacific/Kiritimati", "1")
    assert [line.split()[0] for line in here.splitlines()] == list(ARCHIVES)
    assert here == hashes("America/St_Johns", "2")


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (["zero", "one"], ["zero", "one"]),
        (["T-shirt/top", "Ankle boot"], ["T-shirt_top", "Ankle boot"]),
        (["a/b", "a_b"], ["0-a_b", "1-a_b"]),
        (["Cat", "cat"], ["0-Cat", "1-cat"]),
        (["naïve", "字"], ["na_ve", "_"]),
        (["字", "語"], ["0-_", "1-_"]),
        (["..", "ok"], ["0-", "1-ok"]),
        (["../../etc", "C:\\x"], ["_.._etc", "C__x"]),
        (["", "x"], ["0-", "1-x"]),
        (["x" * 300, "x" * 301], ["0-" + "x" * 100, "1-" + "x" * 100]),
        (["a\n\0", "b. "], ["a__", "b"]),
        ([f"{n}/" for n in range(5)] + [f"{n}?" for n in range(6)], None),
    ],
)
def test_folders_carry_the_names_of_their_classes(classes, folders):
    if folders is None:
        folders = [f"{label:02d}-{name[0]}_" for label, name in enumerate(classes)]
    assert class_folders(classes) == folders


@given(st.lists(st.text(max_size=300), max_size=12, unique=True))
def test_folders_are_safe_and_differ(classes):
    folders = class_folders(classes)
    assert len({folder.lower() for folder in folders}) == len(classes)
    for folder in folders:
        assert re.fullmatch(r"[A-Za-z0-9_ -][A-Za-z0-9._ -]*", folder)
        assert folder == folder.strip(". ")
        assert len(folder) <= 255


def test_a_zip_of_strange_classes_unpacks_below_one_folder(make_bundle, load, tmp_path):
    classes = ["../up", "/root", "a\\b"]
    bundle = load(make_bundle("strange", graph={"num_classes": 3}, classes=classes))
    with zipfile.ZipFile(io.BytesIO(made("zip", Plan.of(bundle, first_seed=0, count=3)))) as container:
        container.extractall(tmp_path / "out")
        assert container.namelist() == ["_up/00000000.png", "_root/00000001.png", "a_b/00000002.png"]
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 3
