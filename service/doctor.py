"""`python -m service doctor`: what would run where, how fast, and why something would not."""

import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter

from service import __version__
from service.bundle import Bundle
from service.catalog import printable
from service.cpus import available_cpus
from service.keys import Keys
from service.loading import engine_of, load_catalog
from service.memory import available_memory
from service.runtime import compiled_providers, conflicting_builds, missing_for_cuda
from service.settings import Settings, stray_variables
from service.tasks import TASKS, task_of
from service.tracing import check_exporter
from service.work import TrialRows, Work, keep

MEASURED_SECONDS = 0.5
LIMITS = (
    "queue_rows",
    "queue_pixels",
    "max_streams",
    "max_count",
    "max_pixels",
    "max_uploads",
    "max_upload_bytes",
    "max_body_bytes",
    "deadline_seconds",
)
"""Of the settings, those that refuse requests."""
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "bentoml", "numpy", "pillow")


def examine(settings: Settings) -> Iterator[str]:
    """The report, line by line."""
    yield f"ganery {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield "  " + ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    yield f"  {available_cpus()} CPUs may be used, of {os.cpu_count()} that the machine has"
    if builds := conflicting_builds():
        yield f"  PROBLEM: {' and '.join(builds)} overwrite each other's files; uninstall both, then install one"
    yield f"  ONNX Runtime is built for {', '.join(compiled_providers())}; SERVICE_PROVIDER is {settings.provider}"
    if settings.provider != "cpu" and (reason := missing_for_cuda()):
        yield f"  {'PROBLEM' if settings.provider == 'cuda' else 'note'}: no CUDA: {reason}"
    yield "settings that differ from their defaults"
    fields = type(settings).model_fields
    changed = {name: value for name, value in settings if value != fields[name].default}
    for name, value in changed.items():
        # The name of the file may be a key by mistake; what is printed here is pasted elsewhere.
        yield f"  SERVICE_{name.upper()}={'(set)' if name == 'api_keys_file' else value}"
    if not changed:
        yield "  none"
    yield from (f"  PROBLEM: {problem}" for problem in (*stray_variables(), *_would_end_it(settings)))
    yield "limits"
    yield f"  {available_memory() / 2**30:.1f} GiB of memory may be used"
    yield from (f"  {name} {getattr(settings, name)}" for name in LIMITS)
    yield f"bundles in {settings.models_dir.resolve()}"
    engine = engine_of(settings)
    catalog = load_catalog(settings, engine)
    for bundle in catalog.bundles.values():
        yield from _bundle(bundle)
    for name, reason in catalog.refused.items():
        yield f"  {name}: REFUSED: {reason}"
    if not catalog.bundles:
        yield f"  PROBLEM: {catalog.why_empty()}"
    else:
        if settings.default_model not in (None, *catalog.bundles):
            yield f"  PROBLEM: SERVICE_DEFAULT_MODEL={settings.default_model} is none of them"
            what = f"a {503 if settings.default_model in catalog.refused else 404}"
        else:
            defaults = {task: model for task in TASKS if (model := catalog.default_for(task))}
            what = ", ".join(f"{model} ({task})" for task, model in defaults.items())
        yield f"requests that name no model get {what}"
    for bundle in catalog.bundles.values():
        bundle.batcher.close()
    engine.close()


def _would_end_it(settings: Settings) -> Iterator[str]:
    """What would end the server while it starts."""
    checks: list[Callable[[], object]] = []
    if settings.api_keys_file is not None:
        checks.append(partial(Keys.read, settings.api_keys_file))
    if settings.tracing is not None:
        checks.append(check_exporter)
    for check in checks:
        try:
            check()
        except SystemExit as end:
            yield str(end)


def _bundle(bundle: Bundle) -> Iterator[str]:
    measured, batcher = bundle.measured, bundle.batcher
    manifest = bundle.manifest
    output = manifest.output
    size = f"{output.height or 'any'}x{output.width or 'any'}x{output.channels}"
    version_ = printable(manifest.version)
    yield f"  {manifest.name} {version_}: {manifest.task}, {size}, digest {manifest.digest[:16]}"
    task = task_of(manifest)
    height, width, _ = task.shape(task.trials()[-1].feed)
    pixels, rows = height * width, batcher.rows_of(height * width)
    most = batcher.pace.max_pixels
    yield f"    on {measured.provider}, {batcher.runners} runner(s), at most {most} pixels in a batch"
    yield f"    rows are {measured.determinism}; golden samples: {bundle.golden}"
    alone, together = (_pictures_per_second(bundle, count, pixels) for count in (1, rows))
    speed = f"{alone:.0f} pictures/s one by one, {together:.0f} in batches of {rows}"
    yield f"    a runner makes, of {width}x{height} pixels, {speed}"


def _pictures_per_second(bundle: Bundle, rows: int, pixels: int) -> float:
    work = Work(rows, rows * pixels, TrialRows(rows), keep)
    runs, seconds, began = 0, 0.0, perf_counter()
    while seconds < MEASURED_SECONDS:
        bundle.batcher.submit(work).result()
        runs, seconds = runs + 1, perf_counter() - began
    return runs * rows / seconds


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
