"""The command line: `python -m service serve`, `generate` and `doctor`."""

import argparse
import signal
import sys

from service.server import serve


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
    from service.settings import Settings  # noqa: PLC0415

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        generate(Settings.from_environment(), given)
    except GaneryError as error:
        sys.exit(error.detail)
    except OSError as error:  # no space left, no right to write
        sys.exit(f"{error.filename or given.out}: {error.strerror or error}; the same command goes on where it stopped")


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports go from 0 to 65535")
    return number


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    serving = commands.add_parser("serve", help="serve the bundles over HTTP, until SIGTERM")
    serving.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all interfaces (default: %(default)s)")
    serving.add_argument("--port", type=_port, default=3000, help="default: %(default)s")
    serving.add_argument(
        "--grace-seconds",
        type=int,
        default=60,
        help="after SIGTERM and SERVICE_DRAIN_SECONDS, time for the answers that have begun (default: %(default)s)",
    )
    serving.set_defaults(run=lambda given: serve(given.host, given.port, grace_seconds=given.grace_seconds))

    generating = commands.add_parser(
        "generate",
        help="write many pictures as tar shards, without HTTP; the same command goes on where it was stopped",
    )
    generating.add_argument("--model", help="the bundle; unset means the default one")
    generating.add_argument("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    generating.add_argument("--count", type=int, help="how many; the sum if --classes says how many of each")
    generating.add_argument("--classes", default="all", help="all, NAME,NAME or NAME=COUNT,NAME=COUNT")
    generating.add_argument("--truncation", type=float, default=1.0, help="in (0, 1] (default: off)")
    generating.add_argument("--picture", default="png", help="png, webp or jpeg (default: %(default)s)")
    generating.add_argument("--out", required=True, help="a folder, or a place that fsspec knows: s3://BUCKET/PREFIX")
    generating.add_argument("--shard-size", type=int, default=10_000, help="pictures of a shard (default: %(default)s)")
    generating.add_argument(
        "--shard", default="0/1", metavar="I/N", help="this is worker I of N, from 0 (default: 0/1)"
    )
    generating.set_defaults(run=_generate)

    doctor = commands.add_parser("doctor", help="say what would run where, how fast, and why something would not")
    doctor.set_defaults(run=lambda _: _doctor())

    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
