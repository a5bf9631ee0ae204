"""The command line: `python -m service serve`, `python -m service doctor`."""

import argparse

from service.server import serve


def _doctor() -> None:
    # Imported here: the process that supervises the server needs none of it.
    from service.doctor import examine  # noqa: PLC0415
    from service.settings import Settings  # noqa: PLC0415

    for line in examine(Settings.from_environment()):
        print(line, flush=True)


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    serving = commands.add_parser("serve", help="serve the bundles over HTTP, until SIGTERM")
    serving.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all interfaces (default: %(default)s)")
    serving.add_argument("--port", type=int, default=3000, help="default: %(default)s")
    serving.add_argument(
        "--grace-seconds",
        type=int,
        default=60,
        help="after SIGTERM and SERVICE_DRAIN_SECONDS, time for the answers that have begun (default: %(default)s)",
    )
    serving.set_defaults(run=lambda given: serve(given.host, given.port, grace_seconds=given.grace_seconds))

    doctor = commands.add_parser("doctor", help="say what would run where, how fast, and why something would not")
    doctor.set_defaults(run=lambda _: _doctor())

    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
