"""`python -m training`: bring data, train, evaluate, export, list what a recipe can choose from."""

import os
import signal

EXIT_STOPPED = 130

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # What is imported below takes seconds, and some of it would turn an exception into one of its own.
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_STOPPED))

import argparse
import errno
import logging
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from service.errors import InvalidBundle, NonFiniteOutput
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, Manifest, Training, file_sha256
from training import loop
from training.architectures import DISCRIMINATORS, GENERATORS, PATCH_DISCRIMINATORS, TRANSLATORS
from training.augment import JITTERS, POLICIES
from training.checkpoint import StateError
from training.compare import compare
from training.compute import Compute
from training.config import RecipeError, lookup
from training.datasets import DATASETS, Data, DatasetError
from training.distances import DISTANCES
from training.evaluation import EVALUATIONS, EvaluationError, Subject, table
from training.evaluation.translation import expect_way_back
from training.export import expect_place, export, graph_of
from training.graph import OUTPUTS, open_graph
from training.methods import METHODS, AbstractMethod
from training.objectives import OBJECTIVES
from training.onnx_file import ExportError, write_onnx
from training.penalties import PENALTIES
from training.recipe import Recipe, parse_recipe, read_recipe
from training.run import Run, RunError
from training.ties import TIES

logger = logging.getLogger("training")

MISTAKES = (
    RecipeError,
    DatasetError,
    RunError,
    StateError,
    ExportError,
    EvaluationError,
    InvalidBundle,
    NonFiniteOutput,
)
EXIT_FAILED = 1
EXIT_DIVERGED = 3

READING = tuple(logging.getLogger(f"training.datasets.{module}") for module in ("picture_files", "pair_folders"))
"""What they say names files that are left out."""

RECIPES = Path(__file__).parent / "recipes"

REGISTRIES: dict[str, Mapping[str, Any]] = {
    "method": METHODS,
    "data set": DATASETS,
    "generator architecture": GENERATORS,
    "discriminator architecture": DISCRIMINATORS,
    "objective": OBJECTIVES,
    "penalty": PENALTIES,
    "augmentation policy": POLICIES,
    "jitter": JITTERS,
    "distance": DISTANCES,
    "translator": TRANSLATORS,
    "patch discriminator": PATCH_DISCRIMINATORS,
    "tie": TIES,
}


def build(recipe: Recipe, data: Data) -> AbstractMethod:
    """The recipe's networks, freshly initialised from its seed.

    Raises:
        RecipeError: if the method does not learn from this kind of data.
    """
    method = lookup(METHODS, recipe.method, "method")
    if not isinstance(data, method.Data):
        raise RecipeError(
            f"the method {recipe.method!r} learns from {method.Data.__name__.lower()}; the data set yields {data}"
        )
    torch.manual_seed(recipe.seed)
    return method(recipe.components, data, partial(recipe.data.load, "test"), recipe.compute)


def restore(run: Run) -> tuple[Recipe, AbstractMethod, Data, Training]:
    """A run's recipe, its networks as they were last saved (on the CPU), its data, and what training took by then."""
    recipe = run.recipe()
    data = recipe.data.load("train")
    state = run.load_state(data)
    if state is None:
        raise RunError(f"{run.path} has not saved anything yet")
    method = build(recipe.model_copy(update={"compute": Compute(device="cpu")}), data)
    method.load_state_dict(state["method"])
    trained = Training(nimg=state["nimg"], seconds=run.effort.seconds, devices=run.effort.devices)
    return recipe, method, data, trained


def shipped_recipes() -> dict[str, Path]:
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def recipe_of(name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """The recipe in the file of that name, or the shipped one.

    Raises:
        RecipeError: if there is none; the message lists the shipped ones.
    """
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        path = lookup(shipped_recipes(), name, "recipe")
    return read_recipe(path, changes)


def bring_data(arguments: argparse.Namespace) -> None:
    if arguments.name not in DATASETS and (arguments.name.endswith(".toml") or arguments.name in shipped_recipes()):
        dataset = recipe_of(arguments.name).data
    else:
        try:
            dataset = lookup(DATASETS, arguments.name, "data set")()
        except TypeError as error:
            raise RecipeError(f"{arguments.name} has settings; name the recipe that holds them instead") from error
    folder = dataset.bring(arguments.source)
    shown = dataset.load("train")
    try:
        held_out = str(dataset.load("test"))
    except DatasetError as error:
        held_out = f"nothing ({error}), so no evaluation, and no method that shows held-out items"
    card = dataset.card(size=shown.size)
    print(f"{card.name}, version {card.version}, in {folder}")
    print(f"training: {shown}; held out: {held_out}")
    print(f"licence {card.licence}, {card.homepage}")


def train(arguments: argparse.Namespace) -> None:
    recipe = recipe_of(arguments.recipe, dict(arguments.changes))
    if arguments.dry_run:
        print(recipe.to_toml(), end="")
        return
    run = Run(arguments.run or Path("runs") / recipe.name)
    with run.locked():
        data = recipe.data.load("train")
        recipe.schedule.expect_items(len(data))
        if run.exists():
            run.expect(recipe)
            total_kimg = run.recipe().schedule.total_kimg
            if recipe.schedule.total_kimg != total_kimg or arguments.hours is not None:
                logger.info("the run keeps the length it was started with: %g kimg", total_kimg)
            recipe = recipe.lasting(total_kimg)
        elif arguments.hours is not None:
            speed = loop.images_per_second(recipe, data, build(recipe, data))
            total_kimg = speed * arguments.hours * 3.6 * loop.RESERVE
            recipe = recipe.lasting(max(total_kimg, recipe.schedule.batch_size / 1000))
            logger.info("%.0f images/s: %.0f kimg fit into %g h", speed, recipe.schedule.total_kimg, arguments.hours)
        method = build(recipe, data)  # before anything is written: what cannot be built is no run yet
        run.create(recipe)
        loop.train(recipe, data, method, run)
    for direction in method.directions or (None,):
        way = "" if direction is None else f" --direction {direction}"
        logger.info("done: python -m training evaluate %s%s", run.path, way)
        ending = "" if direction is None else f"-{direction}"
        logger.info("then: python -m training export %s --to models/%s%s%s", run.path, run.path.name, ending, way)


def measure(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ganery-") as scratch:
        subject, nimg = _open(arguments.target, arguments.direction, Path(scratch))
        if arguments.direction not in (None, subject.direction):
            has = (
                "one generator and no direction" if subject.direction is None else f"the direction {subject.direction}"
            )
            raise RunError(f"{arguments.target} has {has}; leave --direction out")
        if arguments.back is not None:
            back, _ = _open(arguments.back, None, Path(scratch))
            expect_way_back(subject, back)
            subject = replace(subject, back=back.run)
        others = [_open(path, subject.direction, Path(scratch))[0] for path in arguments.against]
        if subject.task not in EVALUATIONS:
            raise EvaluationError(f"nobody knows yet how to measure what {subject.name} does: {subject.task}")
        report = EVALUATIONS[subject.task].from_arguments(arguments).measure(subject, others)
    if nimg is not None:
        Run(arguments.target).save_evaluation(nimg, report, subject.direction)
    print(table(report.metrics))


def write_comparison(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ganery-") as scratch:
        compare([_open(path, arguments.direction, Path(scratch))[0] for path in arguments.targets], arguments.to)
    print(f"written: {arguments.to}")


def _open(path: Path, direction: str | None, scratch: Path) -> tuple[Subject, int | None]:
    """The generator of a bundle, or of a run's last state and the images seen by then; graphs go into `scratch`."""
    if (path / MANIFEST_FILE).exists():
        manifest = Manifest.read(path)
        _check_files(manifest, path)
        recipe = parse_recipe(manifest.recipe, f"the recipe in {path / MANIFEST_FILE}")
        graph = open_graph(path / GENERATOR_FILE)
        return Subject(path.name, manifest.task, recipe, graph, manifest.latent, manifest.direction, folder=path), None
    if not Run(path).exists():
        raise RunError(f"{path} holds neither a run, with its recipe.toml, nor a bundle, with its {MANIFEST_FILE}")
    recipe, method, _, trained = restore(Run(path))
    if not method.directions:
        direction = None
    graphs = {}
    for way in _directions(path, method, direction):
        description = graph_of(method, way)
        file = scratch / f"{len(list(scratch.iterdir()))}.onnx"
        write_onnx(description.module, description.example, OUTPUTS, file, free_axes=description.free_axes)
        graphs[way] = (description, open_graph(file))
    description, graph = graphs.pop(direction)
    back = next((run for _, run in graphs.values()), None)
    return Subject(path.name, description.task, recipe, graph, description.latent, direction, back), trained.nimg


def _directions(path: Path, method: AbstractMethod, direction: str | None) -> tuple[str | None, ...]:
    """The directions that a run trained; `direction`, which is asked for, must be one of them.

    Raises:
        RunError: if it is not.
    """
    if method.directions and direction not in method.directions:
        said = "" if direction is None else f", not {direction}"
        raise RunError(f"{path} trained several generators; say --direction {' or '.join(method.directions)}{said}")
    return method.directions or (None,)


def _check_files(manifest: Manifest, folder: Path) -> None:
    for name, sha256 in manifest.sha256.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise InvalidBundle(f"{folder / name} is missing or not what the manifest says; nothing was measured")


def write_bundle(arguments: argparse.Namespace) -> None:
    run, target = Run(arguments.run), arguments.to
    run.recipe()  # no directory is made for a run that there is not
    expect_place(target)
    recipe, method, data, trained = restore(run)
    _directions(run.path, method, arguments.direction)
    if arguments.direction is not None and not method.directions:
        raise RunError(f"{run.path} trained one generator; leave --direction out")
    extra_files = [run.animation_file] if run.animation_file.exists() else []
    if metrics := run.evaluation(trained.nimg, arguments.direction):
        extra_files += run.evaluation_files(arguments.direction)
    else:
        logger.warning("no numbers in the bundle: run python -m training evaluate %s first", run.path)
    parity = export(
        recipe,
        method,
        target,
        direction=arguments.direction,
        bundle_version=arguments.version,
        images=data.size,
        training=trained,
        metrics=metrics,
        extra_files=extra_files,
    )
    print("torch against ONNX Runtime:", *parity, sep="\n  ")
    print(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.1f} MB")


def show_choices(arguments: argparse.Namespace) -> None:
    for kind, registry in REGISTRIES.items():
        print(f"{kind}: {', '.join(sorted(registry))}")
    print(f"recipe: {', '.join(shipped_recipes())}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train generators and export them as bundles."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("data", help="bring a data set to this machine and verify it")
    command.add_argument("name", help=f"one of {', '.join(DATASETS)}, or a recipe whose data to bring")
    command.add_argument(
        "--from", dest="source", type=Path, metavar="PATH", help="a folder that holds the files already"
    )
    command.set_defaults(command=bring_data)

    command = commands.add_parser("train", help="start a run, or go on with it: the same command")
    command.add_argument("recipe", help=f"a TOML file, or one of {', '.join(shipped_recipes())}")
    command.add_argument("--run", type=Path, help="the run's directory (default: runs/NAME)")
    command.add_argument("--hours", type=_positive, help="fit the schedule to this time, by the speed measured first")
    command.add_argument(
        "--set",
        dest="changes",
        type=_change,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value for a key of the recipe, for example schedule.total_kimg=20; can be given several times",
    )
    command.add_argument("--dry-run", action="store_true", help="print the resolved recipe and do nothing")
    command.set_defaults(command=train)

    command = commands.add_parser("evaluate", help="measure a run or a bundle on held-out data")
    command.add_argument("target", type=Path, metavar="RUN_OR_BUNDLE")
    command.add_argument("--direction", help="of a run that trained two generators: ab or ba")
    command.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="RUN_OR_BUNDLE",
        help="another generator of the same data whose numbers stand beside; can be given several times",
    )
    command.add_argument(
        "--back", type=Path, metavar="BUNDLE", help="the generator of the other direction, for the way there and back"
    )
    for task, evaluation in EVALUATIONS.items():
        evaluation.add_arguments(command.add_argument_group(f"what can {task}"))
    command.set_defaults(command=measure)

    command = commands.add_parser("compare", help="write tables and strips of translators side by side")
    command.add_argument("targets", type=Path, nargs="+", metavar="RUN_OR_BUNDLE")
    command.add_argument("--to", type=Path, required=True, metavar="docs/translation.md")
    command.add_argument("--direction", help="of runs that trained two generators: ab or ba")
    command.set_defaults(command=write_comparison)

    command = commands.add_parser("export", help="make a bundle of a run")
    command.add_argument("run", type=Path)
    command.add_argument("--to", type=Path, required=True, metavar="models/NAME")
    command.add_argument("--version", default="1", help="of the bundle (default: %(default)s)")
    command.add_argument("--direction", help="of a run that trained two generators: ab or ba")
    command.set_defaults(command=write_bundle)

    command = commands.add_parser("list", help="what a recipe can choose from")
    command.set_defaults(command=show_choices)
    return parser


def _change(text: str) -> tuple[str, Any]:
    """`table.key=value`; the value is TOML, or else a string as it stands."""
    key, separator, value = text.partition("=")
    if not separator or not all(key.split(".")):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, as in schedule.batch_size=32")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of hours")
    return value


@contextmanager
def _each_once(*loggers: logging.Logger) -> Iterator[None]:
    """Let no line pass twice: `evaluate` reads the data for the run's state, and again for its numbers."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in said
        said.add(message)
        return new

    for each in loggers:
        each.addFilter(is_new)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(is_new)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    with logging_redirect_tqdm(), _each_once(*READING):
        try:
            arguments.command(arguments)
        except loop.TrainingStopped as stopped:
            logger.info("%s", stopped)
            return EXIT_STOPPED
        except KeyboardInterrupt:
            return EXIT_STOPPED
        except loop.TrainingDiverged as diverged:
            logger.error("%s", diverged)
            return EXIT_DIVERGED
        except OSError as error:
            if error.errno == errno.ENOSPC:
                logger.error("the disk is full: make room, and the same command goes on from what was saved last")
            elif error.filename is not None:
                logger.error("cannot use %s: %s", error.filename, error.strerror)
            else:
                raise
            return EXIT_FAILED
        except MISTAKES as mistake:
            logger.error("%s", mistake)
            return EXIT_FAILED
    return 0


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    sys.exit(main())
