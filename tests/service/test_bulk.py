import errno
import hashlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from service.__main__ import main
from service.bulk import MANIFEST_FILE, PLAN_FILE, Shards, Store, generate, write_shards
from service.catalog import Catalog
from service.errors import GaneryError, InvalidValue
from service.plan import Plan
from service.settings import Settings

ROOT = Path(__file__).parents[2]
FILES = ["digits-000000.tar", "digits-000001.tar", "digits-000002.tar"]


@pytest.fixture
def shards(digits_bundle):
    return Shards(Plan.of(digits_bundle, first_seed=5, count=25), size=10)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def write(shards, place, **settings):
    return [(written.name, written.new) for written in write_shards(shards, Store(str(place)), **settings)]


def contents(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def members(*tars):
    """Name and content of each file, of one tar after the other."""
    found = []
    for content in tars:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            found += [(member.name, tar.extractfile(member).read()) for member in tar]
    return found


def test_the_shards_together_are_what_sample_gives(shards, tmp_path, serve, digits):
    assert write(shards, tmp_path / "out") == [(name, True) for name in FILES]
    with serve() as client:
        sample = client.post("/sample", json={"model": "digits", "seed": 5, "count": 25, "format": "tar"}).content
    assert members(*((tmp_path / "out" / name).read_bytes() for name in FILES)) == members(sample)


def test_a_shard_is_the_same_file_whoever_writes_it(shards, tmp_path):
    write(shards, tmp_path / "alone")
    for worker in (2, 0, 1):
        write(shards, tmp_path / "shared", worker=worker, workers=3)
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
    assert set(contents(tmp_path / "alone")) == {*FILES, *(f"{name}.json" for name in FILES), PLAN_FILE, MANIFEST_FILE}


def test_workers_that_begin_at_the_same_moment_do_not_meet(out):
    with Store(str(out)).writing(PLAN_FILE) as first, Store(str(out)).writing(PLAN_FILE) as second:
        first.write(b"the plan")
        second.write(b"the plan")
    assert contents(out) == {PLAN_FILE: b"the plan"}


def test_two_workers_of_one_shard_harm_no_file(out):
    """A node that is lost may go on writing beside the worker that takes its place, and either may be killed."""
    store = Store(str(out))
    with store.writing("shard") as first:
        first.write(b"the first half, ")
        first.flush()
        with suppress(KeyboardInterrupt), store.writing("shard") as second:
            second.write(b"the first")
            raise KeyboardInterrupt
        first.write(b"the second half")
    assert contents(out) == {"shard": b"the first half, the second half"}


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"bytes": "many"}'])
def test_a_record_that_is_none_is_named(shards, out, record):
    write(shards, out)
    (out / f"{FILES[1]}.json").write_text(record)
    with pytest.raises(GaneryError, match=r"digits-000001.tar.json is no record of a shard; .*remove"):
        write(shards, out)


def test_the_manifest_comes_last_and_tells_the_hash_of_each(shards, out):
    write(shards, out, worker=0, workers=2)
    assert not (out / MANIFEST_FILE).exists()
    write(shards, out, worker=1, workers=2)
    manifest = json.loads((out / MANIFEST_FILE).read_text())
    assert [shard["name"] for shard in manifest["shards"]] == FILES
    assert [shard["samples"] for shard in manifest["shards"]] == [10, 10, 5]
    for shard in manifest["shards"]:
        content = (out / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_goes_on_with_what_is_missing(shards, out):
    write(shards, out)
    before = contents(out)
    (out / f"{FILES[1]}.json").unlink()
    assert write(shards, out) == [(FILES[0], False), (FILES[1], True), (FILES[2], False)]
    assert contents(out) == before


def test_a_shard_that_is_gone_is_written_again(shards, out):
    write(shards, out)
    before = contents(out)
    (out / FILES[1]).unlink()
    assert write(shards, out) == [(FILES[0], False), (FILES[1], True), (FILES[2], False)]
    assert contents(out) == before


def test_a_shard_that_is_not_whole_is_named(shards, out):
    write(shards, out)
    with (out / FILES[1]).open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(GaneryError, match=r"digits-000001.tar has 100 bytes, .*remove digits-000001.tar.json"):
        write(shards, out)


def test_shards_of_another_plan_are_left_alone(shards, digits_bundle, out):
    write(shards, out)
    before = contents(out)
    with pytest.raises(InvalidValue, match=r"another plan \(other seeds\)"):
        write(Shards(Plan.of(digits_bundle, first_seed=6, count=25), size=10), out)
    assert contents(out) == before


def test_what_fails_leaves_nothing_half_written(shards, out, monkeypatch):
    monkeypatch.setattr(Shards, "chunks", lambda self, number: iter([b"begun", 1]))
    with pytest.raises(TypeError):
        write(shards, out)
    assert set(contents(out)) == {PLAN_FILE}


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{secrets.token_hex(8)}"  # for all servers of a process share what they hold
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}/digits"
    server.stop()


def test_a_bucket_holds_what_a_folder_would(shards, out, bucket):
    write(shards, out)
    assert write(shards, bucket) == [(name, True) for name in FILES]
    assert write(shards, bucket) == [(name, False) for name in FILES]
    found = {Path(path).name: fsspec.filesystem("s3").cat(path) for path in fsspec.filesystem("s3").ls(bucket)}
    assert found == contents(out)


def test_what_fails_leaves_nothing_in_a_bucket(shards, bucket, monkeypatch):
    monkeypatch.setattr(Shards, "chunks", lambda self, number: iter([b"x" * 6_000_000, 1]))
    with pytest.raises(TypeError):
        write(shards, bucket)
    assert [Path(path).name for path in fsspec.filesystem("s3").ls(bucket, refresh=True)] == [PLAN_FILE]


def test_the_largest_bundle_is_the_one_of_the_settings(digits, out, monkeypatch):
    monkeypatch.setitem(Catalog.load.__func__.__kwdefaults__, "max_bytes", 10)
    settings = Settings(models_dir=digits.parent, provider="cpu", processes=0)
    generate(settings, out=str(out), model="digits", count=3)
    assert (out / MANIFEST_FILE).exists()


def command(models, *arguments):
    environment = {**os.environ, "SERVICE_MODELS_DIR": str(models), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "service", "generate", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(running):
    """Its exit code and what it wrote."""
    output, errors = running.communicate(timeout=60)
    return running.returncode, output, errors


def test_the_command_that_was_stopped_goes_on(models, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    ask = ["--model", "digits", "--classes", "one=500,two=2500", "--shard-size", 250, "--out"]
    assert finish(command(models, *ask, whole))[0] == 0
    first = command(models, *ask, stopped)
    deadline = time.monotonic() + 60
    while not (stopped / "digits-000001.tar.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    first.send_signal(signal.SIGTERM)
    finish(first)
    returncode, output, _ = finish(command(models, *ask, stopped))
    assert returncode == 0
    assert "digits-000000.tar: was there" in output
    assert contents(stopped) == contents(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "2/2"], "--shard: 2/2 is not I/N"),
        (["--count", "0"], "--count: 0 is not a whole number of 1 or more"),
        (["--count", "many"], "--count: many is not"),
        (["--shard-size", "0"], "--shard-size: 0 is not a whole number of 1 or more"),
        (["--seed", "18446744073709551616"], "from 0 to 18446744073709551615"),
        (["--picture", "gif"], "it takes png, webp, jpeg"),
        (["--classes", "one=1,two"], "with a count for one class"),
        (["--classes", "one=1,two=1,one=1"], "one class comes twice"),
        (["--truncation", "2"], "--truncation: 2: Input should be less than or equal to 1"),
        (["--truncation", "0"], "greater than or equal to 0.001"),
        (["--truncation", "0.1234"], "three decimals"),
        (["--truncation", "inf"], "finite"),
        (["--truncation", "half"], "valid number"),
    ],
)
def test_a_mistake_of_typing_is_told_before_anything_is_loaded(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("sys.argv", ["service", "generate", "--out", "nowhere://x", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "seven", "--count", "1"], "unknown class 'seven'"),
        (["--model", "nobody", "--count", "1"], "unknown model 'nobody'; available: any, digits, fixed, plain"),
        ([], "--count is missing"),
        (["--count", 10**19], "10000000000000000000 pictures"),
        (["--model", "any", "--count", 1], "model 'any' does 'translate'; asked for is 'generate'"),
        (["--count", "1", "--out", "nowhere://x"], "Protocol not known: nowhere"),
    ],
)
def test_a_mistake_that_every_worker_makes_is_told_in_a_line(models, tmp_path, arguments, message):
    """The chart gives the Job up at a 2, and has a worker try again at a 1."""
    returncode, _, errors = finish(command(models, "--model", "digits", "--out", tmp_path / "out", *arguments))
    assert returncode == 2
    assert message in errors
    assert "Traceback" not in errors


def test_a_setting_that_is_none_is_named(models, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_MODEL_DIR", "elsewhere")
    ask = ["--model", "digits", "--count", 1, "--out", tmp_path / "out"]
    returncode, _, errors = finish(command(models, *ask))
    assert (returncode, "is it SERVICE_MODELS_DIR?" in errors) == (0, True)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "the same command goes on"), (errno.EACCES, "choose another")]
)
def test_where_nothing_can_be_written_it_says_whether_to_try_again(capsys, monkeypatch, number, advice):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), "there")

    monkeypatch.setattr("service.bulk.generate", refuse)
    monkeypatch.setattr("sys.argv", ["service", "generate", "--out", "x", "--count", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code.startswith("there: ")
    assert advice in end.value.code


def test_what_a_library_for_buckets_says_is_no_traceback(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.makedirs", refuse)
    with pytest.raises(GaneryError, match="memory://x: Unable to locate credentials"):
        Store("memory://x")


def test_a_shard_that_was_changed_ends_its_own_worker(shards, models, out):
    write(shards, out)
    (out / f"{FILES[1]}.json").write_text("{}")
    ask = ["--model", "digits", "--seed", 5, "--count", 25, "--shard-size", 10, "--out", out]
    returncode, _, errors = finish(command(models, *ask))
    assert (returncode, "is no record of a shard" in errors) == (1, True)
