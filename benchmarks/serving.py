"""How fast, how late and how large: python -m benchmarks.serving

Starts this project's server and others that serve the same bundle, each in turn on loopback, and measures them with wrk
beside the limit: the same pictures made in process. Read the ratios; absolute figures are this machine's. The others'
environments are made under .bench/ when they are missing. Linux, with wrk installed; nothing else should be running.
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import load, report
from benchmarks.bundles import SHIPPED, large
from benchmarks.compare import compare, or_why_not, sample_many, start_with_many
from benchmarks.environments import CACHE, ROOT, requirements_of
from benchmarks.rivals import RIVALS
from benchmarks.servers import SERVERS, Server
from service.cpus import available_cpus

ROUNDS, SECONDS = 3, 5
MANY_SAMPLES = 100_000
MANY_SAMPLES_QUICKLY = 5_000

BUNDLES: dict[str, Callable[[], Path]] = {"fashion": lambda: SHIPPED, "large": large}

PUBLISHED = (ROOT / "benchmarks" / "results" / "serving.json", ROOT / "docs" / "images" / "serving.png")
TRIED = (CACHE / "serving.json", CACHE / "serving.png")
"""For runs that are not whole, so that published figures come from whole ones."""


def _machine() -> dict[str, Any]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cpus": available_cpus(),
        "system": platform.system(),
    }


def _versions() -> dict[str, str]:
    pins = [line.split("==") for rival in RIVALS.values() for line in requirements_of(rival).read_text().splitlines()]
    of_rivals = {pin[0]: pin[1] for pin in pins if pin[0] in {rival.package for rival in RIVALS.values()}}
    ours = ("numpy", "onnxruntime", "pillow", "uvloop")
    return {"python": platform.python_version(), **{name: version(name) for name in ours}, **of_rivals}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1 second, 1 round: does everything work?")
    parser.add_argument("--only", help=f"names with commas between them, of: {', '.join(SERVERS)}")
    parser.add_argument("--bundle", choices=BUNDLES, help="one of them; both if left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each measurement (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="measure nothing; print and draw the published results")
    return parser


def _chosen(only: str | None) -> dict[str, Server]:
    names = list(SERVERS) if only is None else [name.strip() for name in only.split(",")]
    if unknown := [name for name in names if name not in SERVERS]:
        raise SystemExit(f"unknown server {', '.join(unknown)}; there are: {', '.join(SERVERS)}")
    return {name: SERVERS[name] for name in names}


def main() -> None:
    arguments = _parser().parse_args()
    results_file, figure = PUBLISHED
    if not arguments.report:
        load.require_wrk()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped on the way out
        shortened = arguments.quick or arguments.rounds < ROUNDS or arguments.seconds < SECONDS
        whole = not (shortened or arguments.only or arguments.bundle)
        results_file, figure = PUBLISHED if whole else TRIED
        results_file.parent.mkdir(parents=True, exist_ok=True)
        for results in measure(arguments):  # what has been measured is kept, whatever happens to the rest
            results_file.write_text(json.dumps(results, indent=2) + "\n")
    elif not results_file.exists():
        raise SystemExit(f"{os.path.relpath(results_file)} is missing; a whole run writes it: make bench")
    results = json.loads(results_file.read_text())
    print(report.markdown(results))
    figure.parent.mkdir(parents=True, exist_ok=True)
    report.draw(results, figure)
    print(f"{os.path.relpath(results_file)}, {os.path.relpath(figure)}", file=sys.stderr)


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything that was asked for, each time with more of it; see `report` for how it is read."""
    rounds, seconds = (1, 1) if arguments.quick else (arguments.rounds, arguments.seconds)
    servers = _chosen(arguments.only)
    plain = [server for server in servers.values() if not server.settings]
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "versions": _versions(),
        "rounds": rounds,
        "seconds": seconds,
        "bundles": {},
    }
    for name in [arguments.bundle] if arguments.bundle else BUNDLES:
        bundle = BUNDLES[name]()
        results["bundles"][name] = compare(bundle, servers.values() if bundle == SHIPPED else plain, rounds, seconds)
        yield results
    if "ours" in servers and "fashion" in results["bundles"]:
        many = MANY_SAMPLES_QUICKLY if arguments.quick else MANY_SAMPLES
        results["sample"] = or_why_not(lambda: sample_many(rounds, seconds, many))
        yield results
        results["start"] = or_why_not(lambda: start_with_many(rounds))
        yield results


if __name__ == "__main__":
    main()
