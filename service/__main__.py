"""The command line: `python -m service serve`, `generate` and `doctor`."""

import argparse
import errno
import re
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.server import serve

if TYPE_CHECKING:
    from service.plan import Classes

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
"""What a disk says that may have room later."""
SHARD = re.compile("([0-9]{1,9})/([1-9][0-9]{0,8})")


def _doctor() -> None:
    # Imported here: the process that supervises the server needs none of it.
    from service.doctor import examine  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415

    bad = False
    for line in examine(Settings.from_environment()):
        print(line, flush=True)
        bad = bad or "PROBLEM: " in line or "REFUSED: " in line
    sys.exit(1 if bad else 0)


def _generate(given: argparse.Namespace) -> None:
    from service.bulk import generate  # noqa: PLC0415
    from service.errors import GaneryError  # noqa: PLC0415
    from service.settings import Settings, stray_variables  # noqa: PLC0415

    for stray in stray_variables():
        print(stray, file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    worker, workers = given.shard
    try:
        generate(
            Settings.from_environment(),
            out=given.out,
            model=given.model,
            first_seed=given.seed,
            count=given.count,
            classes=given.classes,
            truncation=given.truncation,
            picture=given.picture,
            shard_size=given.shard_size,
            worker=worker,
            workers=workers,
        )
    except GaneryError as error:
        print(error.detail, file=sys.stderr)
        # What over HTTP would be the client's mistake is one of the arguments: 2, as argparse ends.
        sys.exit(2 if error.status < 500 else 1)
    except OSError as error:
        advice = "the same command goes on where it stopped" if error.errno in FULL else "choose another --out"
        sys.exit(f"{error.filename or given.out}: {error.strerror or error}; {advice}")


def _number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Reads a whole number from `least` to `most`; None is without limit."""
    allowed = f"of {least} or more" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text} is not a whole number {allowed}")
        return int(text)

    return read


def _shard(text: str) -> tuple[int, int]:
    """`I/N`: worker I of N, from 0."""
    match = SHARD.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 0 to N - 1, for example 0/4")
    return int(match[1]), int(match[2])


def _classes(text: str) -> "Classes | None":
    """`all`; one name or index, or several with commas between them; or how many of each, `sneaker=500,bag=30`."""
    if text == "all":
        return None
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        return [int(part) if part.isdecimal() else part for part in parts]
    pairs = [part.partition("=") for part in parts]
    if not all(count.strip().isdecimal() for _, _, count in pairs):
        raise argparse.ArgumentTypeError(
            f"{text}: with a count for one class, give one for each, as in sneaker=500,bag=30"
        )
    counts = {name.strip(): int(count) for name, _, count in pairs}
    if len(counts) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text}: one class comes twice; give each once")
    return counts


def _truncation(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from service.schemas import TruncationField  # noqa: PLC0415

    try:
        truncation: float = TypeAdapter(TruncationField).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.errors()[0]['msg']}") from None
    return truncation


def _picture(text: str) -> str:
    from service.formats import FORMATS  # noqa: PLC0415

    if text not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text} is unknown; it takes {', '.join(FORMATS)}")
    return text


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    serving = commands.add_parser("serve", help="serve the bundles over HTTP, until SIGTERM")
    serving.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all interfaces (default: %(default)s)")
    serving.add_argument("--port", type=_number(0, 65535), default=3000, help="default: %(default)s")
    serving.add_argument(
        "--grace-seconds",
        type=_number(0),
        default=60,
        help="after SIGTERM and SERVICE_DRAIN_SECONDS, time for the answers that have begun (default: %(default)s)",
    )
    serving.set_defaults(run=lambda given: serve(given.host, given.port, grace_seconds=given.grace_seconds))

    generating = commands.add_parser(
        "generate",
        help="write many pictures as tar shards, without HTTP; the same command goes on where it was stopped",
    )
    generating.add_argument("--model", help="the bundle; unset means the default one")
    generating.add_argument(
        "--seed", type=_number(0, 2**64 - 1), default=0, help="of the first picture (default: %(default)s)"
    )
    generating.add_argument("--count", type=_number(1), help="how many; the sum if --classes says how many of each")
    generating.add_argument("--classes", type=_classes, default="all", help="all, NAME,NAME or NAME=COUNT,NAME=COUNT")
    generating.add_argument("--truncation", type=_truncation, default=1.0, help="in (0, 1] (default: off)")
    generating.add_argument("--picture", type=_picture, default="png", help="png, webp or jpeg (default: %(default)s)")
    generating.add_argument("--out", required=True, help="a folder, or a place that fsspec knows: s3://BUCKET/PREFIX")
    generating.add_argument(
        "--shard-size", type=_number(1), default=10_000, help="pictures of a shard (default: %(default)s)"
    )
    generating.add_argument(
        "--shard", type=_shard, default="0/1", metavar="I/N", help="this is worker I of N, from 0 (default: 0/1)"
    )
    generating.set_defaults(run=_generate)

    doctor = commands.add_parser("doctor", help="say what would run where, how fast, and why something would not")
    doctor.set_defaults(run=lambda _: _doctor())

    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
