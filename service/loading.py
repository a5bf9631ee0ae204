"""What the settings say of the bundles, and of what runs them."""

from collections.abc import Callable

from service.batcher import Observer, QueueLimits
from service.catalog import Catalog
from service.engine import Engine, Here
from service.processes import Processes, how_many
from service.settings import Settings


def engine_of(settings: Settings, *, on_end: Callable[[], None] = lambda: None) -> Engine:
    """Where graphs are run.

    Args:
        on_end: see `Processes`.
    """
    count = how_many(settings.processes, settings.provider)
    if count == 0:
        return Here(settings.provider, max_bytes=settings.max_bundle_bytes)
    return Processes(
        count,
        settings.provider,
        trial_seconds=settings.trial_seconds,
        trial_bytes=settings.trial_bytes,
        max_bundle_bytes=settings.max_bundle_bytes,
        stall_seconds=settings.stall_seconds / 2,  # replaced, before /livez fails
        on_end=on_end,
    )


def load_catalog(
    settings: Settings,
    engine: Engine,
    *,
    limits: QueueLimits | None = None,
    observe: Callable[[str], Observer | None] = lambda _: None,
) -> Catalog:
    """The bundles; see `Catalog.load`.

    Args:
        limits: of the queues; None if nobody but the caller asks.
    """
    return Catalog.load(
        settings.models_dir,
        default=settings.default_model,
        engine=engine,
        max_bytes=settings.max_bundle_bytes,
        limits=limits,
        observe=observe,
    )
