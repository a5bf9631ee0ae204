import hashlib
import io
import zipfile

import numpy as np
import pytest

from service import golden as golden_module
from service.bundle import Bundle
from service.golden import save_pixels, this_hardware
from service.manifest import GOLDEN_FILE, MANIFEST_FILE, Manifest, file_sha256

CPU = "CPUExecutionProvider"
SEEDS = (3, 5, 7)


def sha256(picture):
    return hashlib.sha256(picture.tobytes()).hexdigest()


@pytest.fixture
def with_golden(make_bundle):
    """A bundle with golden samples as export writes them, but for a shift of their levels and what a test changes."""

    def make(name="golden", *, shift=0, made_on=None, content=None, **members):
        directory = make_bundle(name)
        bundle = Bundle.load(directory)
        pixels = np.stack([bundle.picture(bundle.sample(seed=seed)) for seed in SEEDS])
        pixels[1, 0, 0, 0] += shift
        save_pixels(directory / GOLDEN_FILE, pixels)
        if content is not None:
            (directory / GOLDEN_FILE).write_bytes(content)
        changes = {
            "sha256": {**bundle.manifest.sha256, GOLDEN_FILE: file_sha256(directory / GOLDEN_FILE)},
            "golden": [
                {"seed": seed, "label": None, "pixels_sha256": sha256(picture)}
                for seed, picture in zip(SEEDS, pixels, strict=True)
            ],
            "golden_made_on": None if made_on is None else made_on.model_dump(),
            **members,
        }
        manifest = Manifest.model_validate({**bundle.manifest.model_dump(), **changes})
        (directory / MANIFEST_FILE).write_text(manifest.to_json())
        return directory

    return make


def elsewhere():
    return this_hardware(CPU).model_copy(update={"cpu": "another one"})


def test_equal_pixels_match_anywhere(with_golden):
    for name, made_on in {"here": this_hardware(CPU), "there": elsewhere(), "somewhere": None}.items():
        report = Bundle.load(with_golden(name, made_on=made_on)).golden
        assert (report.result, report.checked, report.largest, report.mean) == ("matches", 3, 0, 0)
        assert report.same_hardware is {"here": True, "there": False, "somewhere": None}[name]


def test_another_pixel_on_the_same_hardware_is_not_served(with_golden, refusal):
    with_golden(made_on=this_hardware(CPU), shift=2)
    assert "3 made again on the same hardware: differs by at most 2 levels, 0.00347 on average" in refusal()


@pytest.mark.parametrize("made_on", [elsewhere, lambda: None])
def test_another_pixel_on_other_hardware_is_measured(with_golden, made_on, caplog):
    report = Bundle.load(with_golden(made_on=made_on(), shift=2)).golden
    assert (report.result, report.largest) == ("differs", 2)
    assert report.mean == pytest.approx(2 / (3 * 8 * 8 * 3))


def test_the_difference_reaches_the_card_the_metrics_and_the_log(with_golden, serve, caplog):
    with_golden(made_on=elsewhere(), shift=2)
    with serve() as client:
        card = client.get("/models/golden").json()["golden"]
        metrics = client.get("/metrics").text
    assert card == {
        "result": "differs",
        "checked": 3,
        "same_hardware": False,
        "largest": 2,
        "mean": pytest.approx(2 / 576),
    }
    assert 'ganery_bundle_golden{model="golden",result="differs"} 1.0' in metrics
    assert 'ganery_bundle_golden_levels{model="golden",statistic="largest"} 2.0' in metrics
    assert "made again on other hardware: differs by at most 2 levels" in caplog.text


def test_without_the_pixels_a_difference_has_no_size(with_golden):
    golden = [{"seed": 3, "label": None, "pixels_sha256": "0" * 64}]
    directory = with_golden(golden=golden)
    manifest = Manifest.read(directory)
    hashes = {name: digest for name, digest in manifest.sha256.items() if name != GOLDEN_FILE}
    (directory / MANIFEST_FILE).write_text(manifest.model_copy(update={"sha256": hashes}).to_json())
    report = Bundle.load(directory).golden
    assert (report.result, report.largest, report.mean) == ("differs", None, None)
    assert str(report) == "1 made again on unknown hardware: differs"


def npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def archive(content, name="pixels.npy"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return stream.getvalue()


def npy_header(shape, descr="|u1"):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no array of the name pixels"),
        (b"no archive", "no array of the name pixels"),
        (archive(b"x"), "no array of the name pixels"),
        (archive(b"x", name="../../pixels.npy"), "no array of the name pixels"),
        (npz(others=np.zeros(3)), "no array of the name pixels"),
        (npz(pixels=np.array([{"a": "pickle"}], object)), "no array of the name pixels"),
        (archive(npy_header((2**50,))), "no array of the name pixels"),
        (archive(npy_header((2**40, 2**40))), "no array of the name pixels"),
        (archive(npy_header((3,), "|O") + b"cos\nsystem\n"), "no array of the name pixels"),
        (archive(bytes(2**28)), "unpacks to more than 832 bytes"),
        (npz(pixels=np.zeros((3, 8, 8, 2), np.uint8)), "the manifest implies uint8"),
        (npz(pixels=np.zeros((3, 8, 8), np.int8)), "the manifest implies uint8"),
        (npz(pixels=np.zeros((3, 8, 8, 3), np.uint8)), "does not hold the pixels whose hashes"),
    ],
)
def test_a_hostile_file_is_refused_beside_a_good_bundle(with_golden, content, message, refusal):
    with_golden(content=content)
    assert message in refusal()


def test_a_service_does_not_wait_for_all_of_them(with_golden, monkeypatch):
    monkeypatch.setattr(golden_module, "SECONDS", 0.0)
    assert Bundle.load(with_golden()).golden.checked == golden_module.ROWS


def test_hardware_is_what_the_operating_system_tells(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(golden_module, "CPUINFO", cpuinfo)
    assert this_hardware(CPU).extensions == ()
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Example 3000\nflags\t\t: fpu avx2 avx\n\nmodel name\t: other\n")
    hardware = this_hardware(CPU)
    assert (hardware.cpu, hardware.extensions, hardware.provider) == ("Example 3000", ("avx", "avx2"), CPU)
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n")
    hardware = this_hardware(CPU)
    assert (hardware.cpu, hardware.extensions) == ("CPU implementer 0x41 CPU part 0xd0c", ("asimd",))
