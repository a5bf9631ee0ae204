"""Finds the bundles, serves the good ones when one is bad, and says which and why."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from service.batcher import Observer, QueueLimits
from service.bundle import Bundle
from service.cpus import available_cpus
from service.engine import Engine, Here
from service.errors import GaneryError, InvalidBundle, NotReady, UnknownModel, WrongTask
from service.files import MAX_BUNDLE_BYTES
from service.manifest import ModelName, Task
from service.runtime import conflicting_builds

MAX_REASON = 500
"""Characters of a refusal: part of what it quotes may come from the bundle."""

Outcome = TypeVar("Outcome")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalog:
    """The bundles of one directory; fixed once it has been loaded."""

    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Directory name -> why that bundle is not served."""
    default: str | None = None
    """Name for requests that give none; None means the first bundle by name that does the task."""
    unlisted: str | None = None
    """Why the directory could not be listed; None if it could."""

    @classmethod
    def load(
        cls,
        models_dir: Path,
        *,
        default: str | None = None,
        engine: Engine | None = None,
        max_bytes: int = MAX_BUNDLE_BYTES,
        limits: QueueLimits | None = None,
        observe: Callable[[str], Observer | None] = lambda _: None,
    ) -> "Catalog":
        """Load every sub-directory of `models_dir`, as many at once as there are CPUs.

        Never fails: what cannot be served stands in `refused`.

        Args:
            models_dir: where the bundles are.
            default: name for requests that give none.
            engine: opens and runs the graphs; None is this process.
            max_bytes: of one bundle, all files together.
            limits: of the queue in front of each bundle.
            observe: gives the observer of a bundle's queue by the bundle's name.
        """
        if builds := conflicting_builds():
            logger.error(
                "%s are both installed and overwrite each other's files; uninstall both, then install one",
                " and ".join(builds),
            )
        try:
            directories = _directories(models_dir)
        except OSError as error:
            logger.error("cannot list the models directory %s: %s", models_dir, error.strerror)
            return cls(default=default, unlisted=error.strerror)

        engine = Here(max_bytes=max_bytes) if engine is None else engine

        def load(directory: Path) -> Bundle | Exception:
            try:
                _check_place(directory, models_dir)
                return Bundle.load(
                    directory,
                    engine=engine,
                    max_bytes=max_bytes,
                    limits=limits,
                    observer=observe(directory.name),
                )
            except Exception as error:  # one bundle must not keep the others from being served
                return error

        bundles, refused = {}, {}
        for directory, outcome in zip(directories, _in_threads(load, directories), strict=True):
            name = printable(directory.name)
            if isinstance(outcome, Bundle):
                bundles[name] = outcome
                _report(outcome)
            else:
                refused[name] = _reason(outcome)
                unforeseen = None if isinstance(outcome, GaneryError) else outcome
                logger.error("bundle %s is refused: %s", name, refused[name], exc_info=unforeseen)
        engine.start()
        if default is not None and default not in bundles:
            logger.error("the default model %r is not among the bundles served: %s", default, ", ".join(bundles))
        return cls(bundles, refused, default)

    def default_for(self, task: Task) -> str | None:
        """Name of the bundle for requests that give none; None if there is no bundle for the task.

        A default that does something else is none for this task.
        """
        named = self.bundles.get(self.default or "")
        if self.default is not None and (named is None or named.manifest.task == task):
            return self.default
        return self._first.get(task)

    @cached_property
    def _first(self) -> dict[Task, str]:
        """Task -> the first bundle by name that does it."""
        first: dict[Task, str] = {}
        for name, bundle in self.bundles.items():
            first.setdefault(bundle.manifest.task, name)
        return first

    def named(self, name: str) -> Bundle:
        """The bundle of that name.

        Raises:
            UnknownModel: if there is none.
            NotReady: if it has been refused.
        """
        if name in self.refused:
            raise NotReady(f"model {name!r} is not served: {self.refused[name]}", retry_after=None)
        if name not in self.bundles:
            available = list(self.bundles)
            raise UnknownModel(
                f"unknown model {name[:100]!r}; available: {', '.join(available) or 'none'}", choices=available
            )
        return self.bundles[name]

    def of_digest(self, prefix: str, name: object = None) -> Bundle:
        """The bundle whose samples' ids begin so.

        Args:
            prefix: of its digest.
            name: of the one that is meant, where several have it: a bundle may be served under two names.

        Raises:
            UnknownModel: if there is none.
            NotReady: if it may be one that has been refused.
        """
        bundles = [bundle for bundle in self.bundles.values() if bundle.manifest.task == "generate"]
        able = [bundle for bundle in bundles if bundle.manifest.digest.startswith(prefix)]
        if able:
            return next((bundle for bundle in able if bundle.name == name), able[0])
        if self.refused:
            raise NotReady(
                f"no bundle with digest {prefix[:64]}... is served; perhaps it is refused: {self._why_refused}",
                retry_after=None,
            )
        raise UnknownModel(
            f"no bundle with digest {prefix[:64]}... is served; the ids of this service begin with "
            + (", ".join(f"g1.{b.manifest.digest[:16]} ({b.name})" for b in bundles) or "nothing"),
            choices=[bundle.name for bundle in bundles],
        )

    def get(self, name: str | None, *, task: Task) -> Bundle:
        """The bundle that a request means: the one it names, or the default for the task.

        Raises:
            UnknownModel: if there is none of that name, or none that does the task.
            NotReady: if it has been refused, or may be one that has been, or nothing is served.
            WrongTask: if it does something else.
        """
        if name is None:
            name = self.default_for(task)
        if name is None and self.bundles and self.refused:
            raise NotReady(f"no model that is served does {task!r}; refused: {self._why_refused}", retry_after=None)
        if name is None and self.bundles:
            raise UnknownModel(
                f"no model that is served here does {task!r}; GET /models lists what they do", choices=[]
            )
        if name is None:
            raise NotReady(self.why_empty(), retry_after=None)
        bundle = self.named(name)
        if bundle.manifest.task != task:
            able = [other.name for other in self.bundles.values() if other.manifest.task == task]
            raise WrongTask(
                f"model {name!r} does {bundle.manifest.task!r}; asked for is {task!r}, which "
                f"{', '.join(able) or 'none'} can do",
                choices=able,
            )
        return bundle

    def why_empty(self) -> str:
        """Why no bundle is served, for whoever has to mend it."""
        if self.unlisted is not None:
            return f"the models directory (SERVICE_MODELS_DIR) cannot be listed: {self.unlisted}"
        if not self.refused:
            return "no bundle was found in the models directory (SERVICE_MODELS_DIR)"
        return f"no bundle can be served: {self._why_refused}"

    @property
    def _why_refused(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.refused.items())


def _in_threads(load: Callable[[Path], Outcome], directories: Sequence[Path]) -> Iterator[Outcome]:
    """What `load` gives for each, in order.

    No pool: those of `concurrent.futures` keep a process that is told to stop, those of `multiprocessing` need a place
    to write.
    """
    outcomes: dict[Path, Future[Outcome]] = {directory: Future() for directory in directories}
    waiting = iter(outcomes.items())
    taking = Lock()

    def work() -> None:
        while True:
            with taking:
                directory, outcome = next(waiting, (None, None))
            if directory is None or outcome is None:
                return
            outcome.set_result(load(directory))

    for _ in range(min(available_cpus(), len(directories))):
        Thread(target=work, daemon=True).start()
    return (outcome.result() for outcome in outcomes.values())


def _report(bundle: Bundle) -> None:
    level = logging.WARNING if bundle.golden.result == "differs" else logging.INFO
    provider = bundle.measured.provider
    logger.log(level, "bundle %s loaded on %s; its golden samples: %s", bundle.name, provider, bundle.golden)


def _directories(models_dir: Path) -> list[Path]:
    with os.scandir(models_dir) as entries:
        return sorted(Path(entry) for entry in entries if not entry.name.startswith(".") and _is_candidate(entry))


def _is_candidate(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a directory, or may have been meant as one."""
    try:
        return entry.is_dir() or (entry.is_symlink() and not entry.is_file())
    except OSError:
        return True  # the attempt to load it says what is wrong


def _check_place(directory: Path, models_dir: Path) -> None:
    try:
        TypeAdapter(ModelName).validate_python(directory.name)
    except ValidationError as error:
        raise InvalidBundle(
            "the directory's name is none for a bundle; it takes at most 64 lower-case letters, digits, dots, "
            "dashes and underscores"
        ) from error
    try:
        place = Path(os.path.realpath(directory, strict=True))
    except OSError as error:
        raise InvalidBundle(f"cannot open the directory: {error.strerror}") from error
    if not place.is_relative_to(os.path.realpath(models_dir)):
        raise InvalidBundle("it is a link out of the models directory; put the bundle itself there")


def _reason(error: Exception) -> str:
    if not isinstance(error, GaneryError):
        return f"unforeseen {type(error).__name__}; the log has it"
    text = printable(error.detail)
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def printable(text: str) -> str:
    """The text, with escapes for what could forge a line of the log or is no valid Unicode."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
