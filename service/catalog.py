"""Finds the bundles, serves the good ones when one is bad, and says which and why."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.batcher import Limits, Observer
from service.bundle import Bundle
from service.errors import GaneryError, NotReady, UnknownModel, WrongTask
from service.manifest import Task
from service.runtime import conflicting_builds
from service.settings import Provider

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalog:
    """The bundles of one directory; fixed once it has been loaded."""

    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    """Directory name -> why that bundle is not served."""
    default: str | None = None
    """Name for requests that give none; None means the first bundle by name that does the task."""

    @classmethod
    def load(
        cls,
        models_dir: Path,
        *,
        default: str | None = None,
        provider: Provider = "auto",
        limits: Limits | None = None,
        observe: Callable[[str], Observer | None] = lambda _: None,
    ) -> "Catalog":
        """Load every sub-directory of `models_dir`. Never fails: what cannot be served stands in `refused`.

        Args:
            models_dir: where the bundles are.
            default: name for requests that give none.
            provider: the hardware to run on.
            limits: of the queue in front of each bundle.
            observe: gives the observer of a bundle's queue by the bundle's name.
        """
        if builds := conflicting_builds():
            logger.error(
                "%s are both installed and overwrite each other's files; uninstall both, then install one",
                " and ".join(builds),
            )
        bundles, refused = {}, {}
        for directory in _directories(models_dir):
            try:
                bundles[directory.name] = Bundle.load(
                    directory, provider=provider, limits=limits, observer=observe(directory.name)
                )
            except GaneryError as error:
                refused[directory.name] = error.detail
                logger.error("bundle %s is refused: %s", directory.name, error.detail)
            except Exception as error:  # one bundle must not keep the others from being served
                refused[directory.name] = f"unforeseen {type(error).__name__}; the log has it"
                logger.exception("bundle %s is refused", directory.name)
            else:
                _report(bundles[directory.name])
        if default is not None and default not in bundles:
            logger.error("the default model %r is not among the bundles served: %s", default, ", ".join(bundles))
        return cls(bundles, refused, default)

    def default_for(self, task: Task) -> str | None:
        """Name of the bundle for requests that give none; None if there is no bundle for the task."""
        return self.default or next((b.name for b in self.bundles.values() if b.manifest.task == task), None)

    def named(self, name: str) -> Bundle:
        """The bundle of that name.

        Raises:
            UnknownModel: if there is none.
            NotReady: if it has been refused.
        """
        if name in self.refused:
            raise NotReady(f"model {name!r} is not served: {self.refused[name]}")
        if name not in self.bundles:
            available = list(self.bundles)
            raise UnknownModel(
                f"unknown model {name[:100]!r}; available: {', '.join(available) or 'none'}", choices=available
            )
        return self.bundles[name]

    def of_digest(self, prefix: str) -> Bundle:
        """The bundle whose digest begins so.

        Raises:
            UnknownModel: if none does.
        """
        for bundle in self.bundles.values():
            if bundle.manifest.digest.startswith(prefix):
                return bundle
        raise UnknownModel(
            f"no bundle with digest {prefix[:64]}... is served; the ids of this service begin with "
            + (", ".join(f"g1.{b.manifest.digest[:16]} ({b.name})" for b in self.bundles.values()) or "nothing")
        )

    def get(self, name: str | None, *, task: Task) -> Bundle:
        """The bundle that a request means: the one it names, or the default for the task.

        Raises:
            UnknownModel: if there is none of that name.
            NotReady: if it has been refused, or nothing does the task.
            WrongTask: if it does something else.
        """
        if name is None:
            name = self.default_for(task)
        if name is None:
            raise NotReady(self.why_empty())
        bundle = self.named(name)
        if bundle.manifest.task != task:
            raise WrongTask(f"model {name!r} does {bundle.manifest.task!r}; this route asks for {task!r}")
        return bundle

    def why_empty(self) -> str:
        """Why no bundle is served, for whoever has to mend it."""
        if not self.refused:
            return "no bundle was found in the models directory (SERVICE_MODELS_DIR)"
        return "no bundle can be served: " + "; ".join(f"{name}: {reason}" for name, reason in self.refused.items())


def _report(bundle: Bundle) -> None:
    level = logging.WARNING if bundle.golden == "differs" else logging.INFO
    provider = bundle.generator.provider
    logger.log(level, "bundle %s loaded on %s; its golden samples: %s", bundle.name, provider, bundle.golden)


def _directories(models_dir: Path) -> list[Path]:
    try:
        return sorted(path for path in models_dir.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        logger.error("cannot list the models directory %s: %s", models_dir, error.strerror)
        return []
