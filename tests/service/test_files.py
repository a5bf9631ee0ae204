import json
import os
import shutil
import socket
import time

import pytest

from service.errors import InvalidBundle
from service.files import read_file, read_verified
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, SAMPLES_FILE, file_sha256

MANIFEST_OR_SAMPLES = pytest.mark.parametrize("name", [MANIFEST_FILE, SAMPLES_FILE])


@pytest.fixture
def evil(make_bundle):
    """A bundle that a test then spoils."""
    return make_bundle("evil")


def change(directory, **members):
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def list_hash(directory, name, sha256):
    path = directory / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    manifest["sha256"][name] = sha256
    path.write_text(json.dumps(manifest))


@MANIFEST_OR_SAMPLES
def test_a_fifo_is_not_waited_for(evil, name, refusal):
    (evil / name).unlink()
    os.mkfifo(evil / name)
    assert refusal() == f"{name} is not a regular file"


@MANIFEST_OR_SAMPLES
def test_a_socket_is_no_file(evil, name, refusal, monkeypatch):
    (evil / name).unlink()
    monkeypatch.chdir(evil)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        assert refusal() == f"{name} is not a regular file"


@MANIFEST_OR_SAMPLES
def test_a_device_is_no_file(evil, name, refusal):
    (evil / name).unlink()
    try:
        os.mknod(evil / name, 0o20666, os.makedev(1, 5))  # /dev/zero has no end
    except PermissionError:
        pytest.skip("only root makes devices")
    try:
        assert refusal() in {f"{name} is not a regular file", f"cannot read {name}: Permission denied"}
    finally:
        (evil / name).unlink()


@MANIFEST_OR_SAMPLES
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "../plain/manifest.json"])
def test_a_link_out_of_the_bundle_is_not_followed(evil, name, target, refusal):
    (evil / name).unlink()
    (evil / name).symlink_to(target)
    assert refusal() == f"{name} is a link out of the bundle; put the file itself there"


def test_a_link_to_itself_is_not_followed(evil, refusal):
    (evil / SAMPLES_FILE).unlink()
    (evil / SAMPLES_FILE).symlink_to(SAMPLES_FILE)
    assert "symbolic links" in refusal()


def test_a_directory_linked_out_of_the_bundle_is_not_entered(evil, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (evil / "inside").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidBundle, match="link out of the bundle"):
        read_file(evil, "inside/file", max_bytes=9)


def test_a_hard_link_is_a_file_like_any_other(evil, tmp_path):
    os.link(evil / SAMPLES_FILE, tmp_path / "other")
    assert read_file(evil, SAMPLES_FILE, max_bytes=99) == b"not looked at"


@pytest.mark.parametrize(
    "name", ["../plain/samples.png", "/etc/passwd", "a\0b", "a/b", "\u00fcber", "x" * 65, "", ".", ".."]
)
def test_a_name_that_is_a_path_is_refused(evil, name, refusal):
    list_hash(evil, name, "0" * 64)
    assert "manifest.json is invalid at sha256" in refusal()


def test_a_manifest_of_a_gigabyte_is_not_read(evil, refusal):
    os.truncate(evil / MANIFEST_FILE, 2**30)
    began = time.monotonic()
    assert refusal() == "manifest.json is larger than 4194304 bytes, the most allowed"
    assert time.monotonic() - began < 5


def test_files_that_are_too_large_are_not_read(evil, refusal):
    os.truncate(evil / SAMPLES_FILE, 2**40)
    assert "more than the 2147483648 of SERVICE_MAX_BUNDLE_BYTES" in refusal()


def test_all_files_count_together(plain):
    hashes = {name: file_sha256(plain / name) for name in (GENERATOR_FILE, SAMPLES_FILE)}
    size = sum((plain / name).stat().st_size for name in hashes)
    assert list(read_verified(plain, hashes, wanted=[SAMPLES_FILE], max_bytes=size)) == [SAMPLES_FILE]
    with pytest.raises(InvalidBundle, match=f"its files are {size} bytes"):
        read_verified(plain, hashes, wanted=[], max_bytes=size - 1)


def test_what_nobody_wants_is_compared_all_the_same(evil):
    with pytest.raises(InvalidBundle, match=r"sha256 of samples\.png is"):
        read_verified(evil, {SAMPLES_FILE: "0" * 64}, wanted=[])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "manifest.json is invalid at the document"),
        ('{"recipe": ' + '{"a": ' * 10_000 + "1" + "}" * 10_001, "manifest.json is invalid at the document"),
        ("", "manifest.json is invalid at the document"),
        ("\udcff", "manifest.json is invalid at the document"),
        ("9" * 10_000, "manifest.json is invalid at the document"),
    ],
)
def test_json_that_is_not_a_manifest(evil, text, message, refusal):
    (evil / MANIFEST_FILE).write_text(text, errors="surrogateescape")
    assert message in refusal()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"output": {"height": -8, "width": 8, "channels": 3}}, "invalid at output.height"),
        ({"output": {"height": 0, "width": 8, "channels": 3}}, "invalid at output.height"),
        ({"output": {"height": 2**63, "width": 8, "channels": 3}}, "invalid at output.height"),
        ({"output": {"height": 10**30, "width": 8, "channels": 3}}, "invalid at output.height"),
        ({"latent": {"z_dim": 10**9}}, "invalid at latent.z_dim"),
        ({"latent": {"z_dim": 0}}, "invalid at latent.z_dim"),
        ({"classes": ["x" * 201]}, "invalid at classes"),
        ({"classes": [str(i) for i in range(70_000)]}, "invalid at classes"),
        ({"sha256": {GENERATOR_FILE: "0" * 64, **{f"f{i}": "0" * 64 for i in range(64)}}}, "invalid at sha256"),
        ({"golden": [{"seed": 1, "label": None, "pixels_sha256": "0" * 64}] * 16385}, "invalid at golden"),
    ],
)
def test_absurd_sizes_in_a_manifest(evil, members, message, refusal):
    change(evil, **members)
    assert message in refusal()


def test_a_bundle_that_is_gone(evil):
    shutil.rmtree(evil)
    with pytest.raises(InvalidBundle, match=r"cannot read manifest\.json: No such file"):
        read_file(evil, MANIFEST_FILE, max_bytes=9)
