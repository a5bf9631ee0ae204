"""`python -m service generate`: many pictures without HTTP, as tar shards in a folder or a bucket.

A shard's bytes are a function of the plan and of its number, whoever writes it: any number of workers share the shards
of one plan, and what has been written is not written again. `plan.json` says what the shards are of, a record beside
each shard its size and hash, and `manifest.json` all of that, once all are there.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem
from rich.progress import MofNCompleteColumn, Progress

from service.archives import Tar
from service.errors import GaneryError, InvalidValue
from service.formats import FORMATS, FormatName
from service.loading import engine_of, load_catalog
from service.pieces import Pieces
from service.plan import Classes, Plan
from service.settings import Settings

PLAN_FILE, MANIFEST_FILE = "plan.json", "manifest.json"


class Store:
    """A folder of the machine, or a prefix of a bucket: whatever fsspec has an implementation for.

    Nothing is ever seen in it half written.

    Args:
        url: a path, or what fsspec knows: `s3://bucket/prefix`, `gs://...`; credentials are those of its library.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidValue(f"--out {url}: {error}") from error
        try:
            self._files.makedirs(self._root, exist_ok=True)
        except FileExistsError:
            pass
        except OSError:
            raise
        except Exception as error:  # of a library for buckets: no credentials, no way to reach them
            raise GaneryError(f"{url}: {error}") from error

    def read(self, name: str) -> bytes | None:
        """A whole file; None if it is not there."""
        try:
            content: bytes = self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        try:
            self._files.invalidate_cache()
            size: int = self._files.size(self._path(name))
        except FileNotFoundError:
            return None
        return size

    def write(self, name: str, content: bytes) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file that is there when the block ends, and not if it fails."""
        path = self._path(name)
        if isinstance(self._files, LocalFileSystem):  # its own way goes through the directory for temporary files
            # Of this writer alone: two may write one file, workers the plan, or a worker and the one that replaces it.
            aside = f"{path}.{uuid4().hex}.part"
            with self._aside(aside) as stream:
                yield stream
            self._files.mv(aside, path)
            return
        stream = self._files.open(path, "wb", autocommit=False)
        try:
            yield stream
            stream.close()
        except BaseException:
            stream.discard()
            raise
        stream.commit()

    @contextmanager
    def _aside(self, path: str) -> Iterator[BinaryIO]:
        try:
            with self._files.open(path, "wb") as stream:
                yield stream
        except BaseException:
            with suppress(FileNotFoundError):  # it could not be opened
                self._files.rm_file(path)
            raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@dataclass(frozen=True)
class Shards:
    """A plan in parts of equal size, but for the last."""

    plan: Plan
    size: int
    """Samples of a shard."""
    picture: FormatName = "png"
    classes: Classes | None = None
    """As the plan was asked for them."""

    def __len__(self) -> int:
        return len(range(0, len(self.plan), self.size))

    def name(self, number: int) -> str:
        return f"{self.plan.bundle.name}-{number:06d}.tar"

    def indices(self, number: int) -> range:
        """Of a shard's samples in the plan; their keys in the tar too."""
        return range(len(self.plan))[number * self.size : (number + 1) * self.size]

    def chunks(self, number: int) -> Iterator[bytes]:
        """A shard's bytes, about one batch at a time: a tar in WebDataset layout, like that of `/sample`."""
        archive = Tar(self.plan, FORMATS[self.picture])
        pieces = Pieces(self.plan.bundle.batcher, self.plan.works(archive.packing, self.indices(number)))
        try:
            yield from archive.write(pieces)
        finally:
            pieces.close()

    @property
    def facts(self) -> dict[str, Any]:
        """What the bytes of all shards are a function of."""
        plan, bundle = self.plan, self.plan.bundle
        return {
            "model": bundle.name,
            "version": bundle.manifest.version,
            "digest": bundle.manifest.digest,
            "seeds": [[part.start, part.stop] for part in plan.seeds.ranges],
            "classes": self.classes,
            "truncation": plan.truncation,
            "picture": self.picture,
            "count": len(plan),
            "shard_size": self.size,
        }


@dataclass(frozen=True)
class Written:
    """A shard that this worker has looked after."""

    name: str
    samples: int
    new: bool
    """Written now; else it was there already."""


def write_shards(shards: Shards, store: Store, *, worker: int = 0, workers: int = 1) -> Iterator[Written]:
    """Write this worker's part of the shards, one after the other, and the manifest if all are there then.

    Args:
        worker: of `workers`, from 0: it writes shards `worker`, `worker + workers`, ...

    Raises:
        InvalidValue: if the store holds shards of another plan.
        GaneryError: if it holds one that is not what its record says.
        ModelFailure: if the generator fails.
    """
    plan = _json(shards.facts)
    if (before := store.read(PLAN_FILE)) not in (None, plan):
        different = _differences(before, shards.facts)
        raise InvalidValue(
            f"{PLAN_FILE} there is of another plan ({different}); choose an empty place, or the same arguments"
        )
    if before is None:
        store.write(PLAN_FILE, plan)
    for number in range(worker, len(shards), workers):
        name, samples = shards.name(number), len(shards.indices(number))
        if _record(store, name) is not None:
            yield Written(name, samples, new=False)
            continue
        digest, size = hashlib.sha256(), 0
        with store.writing(name) as stream:
            for chunk in shards.chunks(number):
                stream.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        record = {"name": name, "samples": samples, "bytes": size, "sha256": digest.hexdigest()}
        store.write(f"{name}.json", _json(record))
        yield Written(name, samples, new=True)
    records = [_record(store, shards.name(number)) for number in range(len(shards))]
    if None not in records:
        store.write(MANIFEST_FILE, _json({**shards.facts, "shards": records}))


def generate(
    settings: Settings,
    *,
    out: str,
    model: str | None = None,
    first_seed: int = 0,
    count: int | None = None,
    classes: Classes | None = None,
    truncation: float = 1.0,
    picture: FormatName = "png",
    shard_size: int = 10_000,
    worker: int = 0,
    workers: int = 1,
) -> None:
    """Run the command, with a progress bar.

    Args:
        settings: of the service.
        out: see `Store`.
        model: None is the default one.
        first_seed, count, classes, truncation: see `Plan.of`.
        picture: how the pictures are stored.
        shard_size: pictures of a shard.
        worker, workers: see `write_shards`.

    Raises:
        GaneryError: if an argument, the bundle or the store is not as it should be.
    """
    if count is None and not isinstance(classes, Mapping):
        raise InvalidValue("--count is missing; give it, or how many of each class: --classes NAME=COUNT,NAME=COUNT")
    store = Store(out)
    engine = engine_of(settings)
    try:
        catalog = load_catalog(settings, engine)
        bundle = catalog.get(model, task="generate")
        plan = Plan.of(
            bundle,
            first_seed=first_seed,
            count=count,
            classes=classes,
            truncation=truncation,
            max_count=min(bundle.seeds, sys.maxsize),
        )
        shards = Shards(plan, shard_size, picture, classes)
        own = sum(len(shards.indices(number)) for number in range(worker, len(shards), workers))
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
            task = progress.add_task(f"{bundle.name} {worker}/{workers}", total=own)
            for written in write_shards(shards, store, worker=worker, workers=workers):
                progress.advance(task, written.samples)
                progress.console.print(f"{written.name}: {'written' if written.new else 'was there'}")
        bundle.batcher.close()
    finally:
        engine.close()


def _record(store: Store, name: str) -> dict[str, Any] | None:
    """What stands beside a shard; None if it is not written.

    Raises:
        GaneryError: if the two do not fit: no mistake of the arguments, so the other workers go on.
    """
    content = store.read(f"{name}.json")
    if content is None:
        return None
    mend = f"something else has changed it: remove {name}.json, and the shard is written again"
    try:
        record: dict[str, Any] = json.loads(content)
        size = int(record["bytes"])
    except (ValueError, KeyError, TypeError):
        raise GaneryError(f"{name}.json is no record of a shard; {mend}") from None
    if (found := store.size(name)) is None:
        return None
    if found != size:
        raise GaneryError(f"{name} has {found} bytes, its record says {size}; {mend}")
    return record


def _differences(before: bytes | None, facts: dict[str, Any]) -> str:
    """By the names of what another plan has otherwise."""
    try:
        then, now = json.loads(before or b""), json.loads(_json(facts))
        return "other " + ", ".join(key for key, value in now.items() if then.get(key) != value)
    except (ValueError, AttributeError):
        return "it cannot be read"


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"
