"""How fast, how late and how large: python -m benchmarks.serving

Starts this project's server and others that serve the same bundle, each in turn on loopback, and measures them with wrk
beside the limit: the same pictures made in process. Read the ratios; absolute figures are this machine's. Environments of
the others are made under .bench/ when they are missing. Linux, with wrk installed; nothing else should be running.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import limit, load, report, sampling
from benchmarks.bundles import SHIPPED, alone, copies, large
from benchmarks.pictures import Pictures
from benchmarks.rivals import RIVALS
from benchmarks.servers import CACHE, ROOT, SERVERS, Running, Server, Unavailable, running
from service.cpus import available_cpus

CONNECTIONS = (1, 8, 32, 128)
SAMPLES = 1_000
MANY_SAMPLES = 100_000
MANY_SAMPLES_QUICKLY = 5_000
BUNDLES_AT_ONCE = 8

BUNDLES: dict[str, Callable[[], Path]] = {"fashion": lambda: SHIPPED, "large": large}

PUBLISHED = (ROOT / "benchmarks" / "results" / "serving.json", ROOT / "docs" / "images" / "serving.png")
TRIED = (CACHE / "serving.json", CACHE / "serving.png")
"""For runs that are not whole, so that published figures come from whole ones."""


def compare(bundle: Path, servers: Iterable[Server], rounds: int, seconds: float) -> dict[str, Any]:
    """Every server and the limit, in every round once, so that a slow minute of the machine meets all of them."""
    pictures = Pictures(bundle)
    cases: dict[str, list[float]] = defaultdict(list)
    alone_ms: dict[str, list[float]] = defaultdict(list)
    measured: dict[str, list[dict[str, Any]]] = defaultdict(list)
    why_not: dict[str, str] = {}
    steps = [(round_, server) for round_ in range(rounds) for server in (None, *servers)]
    for _, server in (progress := tqdm(steps, desc=bundle.name)):
        progress.set_postfix_str(server.title if server else "the limit")
        if server is None:
            for case in limit.CASES:
                cases[case].append(limit.pictures_per_second(case, bundle, "png", seconds))
            for threads in {1, available_cpus()}:
                alone_ms[str(threads)].append(limit.milliseconds_of_one(bundle, threads, seconds))
        elif server.name not in why_not:
            try:
                with alone(bundle) as models, running(server, models, bundle.name) as started:
                    measured[server.name].append(_one_round(started, pictures, seconds))
            except Unavailable as error:
                why_not[server.name] = str(error)
    return {
        "picture": list(pictures.pixels([0], [0]).shape[1:]),
        "limit": _median_of(cases),
        "milliseconds_of_one_by_threads": _median_of(alone_ms),
        "servers": {
            server.name: {"title": server.title, "unavailable": why_not[server.name]}
            if server.name in why_not
            else {"title": server.title, **_summary(measured[server.name])}
            for server in servers
        },
    }


def _one_round(started: Running, pictures: Pictures, seconds: float) -> dict[str, Any]:
    load.check(started, pictures)
    idle = started.megabytes()
    cells = {
        str(connections): asdict(
            load.measure(started, classes=pictures.classes, connections=connections, seconds=seconds)
        )
        for connections in CONNECTIONS
    }
    return {
        "ready_seconds": started.ready_seconds,
        "idle_megabytes": idle,
        "loaded_megabytes": started.megabytes(),
        "by_connections": cells,
    }


def sample_many(rounds: int, seconds: float, case: str, many: int) -> dict[str, Any]:
    """`POST /sample` of the shipped bundle, beside `case`, the limit's best arrangement, making the same."""
    rates: dict[str, list[float]] = defaultdict(list)
    limits: dict[str, list[float]] = defaultdict(list)
    growth: dict[str, float] = {}
    kinds: dict[str, limit.Kind] = {"tar": "png", "npz": "pixels"}
    with alone(SHIPPED) as models, running(SERVERS["ours"], models, SHIPPED.name) as started:
        for _ in tqdm(range(rounds), desc=f"/sample of {SAMPLES}"):
            for format_, kind in kinds.items():
                rates[format_].append(sampling.stream(started, format_, SAMPLES, keep=True).pictures_per_second)
                limits[format_].append(limit.pictures_per_second(case, SHIPPED, kind, seconds))
    for format_ in tqdm(kinds, desc=f"/sample of {many}"):
        # A server that has made nothing yet, or growth would hide in what the last answer left behind.
        with alone(SHIPPED) as models, running(SERVERS["ours"], models, SHIPPED.name) as started:
            growth[format_] = sampling.stream(started, format_, many, keep=False).growth_megabytes
    return {
        "count": SAMPLES,
        "pictures_per_second": _median_of(rates),
        "limit": _median_of(limits),
        "many": many,
        "growth_megabytes": growth,
    }


def start_with_many(rounds: int) -> dict[str, Any]:
    """How long until `BUNDLES_AT_ONCE` bundles are served, and what they weigh."""
    starts = []
    with copies(SHIPPED, BUNDLES_AT_ONCE) as models:
        for _ in tqdm(range(rounds), desc=f"{BUNDLES_AT_ONCE} bundles"):
            with running(SERVERS["ours"], models, SHIPPED.name) as started:
                starts.append({"ready_seconds": started.ready_seconds, "idle_megabytes": started.megabytes()})
    return {"bundles": BUNDLES_AT_ONCE, **_summary(starts)}


def _or_why_not(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measure()
    except Unavailable as error:
        return {"unavailable": str(error)}


def _summary(rounds: list[Any]) -> Any:
    """The same nesting with the median of the rounds for each number; errors are added up."""
    first = rounds[0]
    if not isinstance(first, Mapping):
        return statistics.median(rounds)
    summary = {key: _summary([round_[key] for round_ in rounds]) for key in first}
    if "errors" in first:
        summary["errors"] = sum(round_["errors"] for round_ in rounds)
    return summary


def _median_of(series: Mapping[str, list[float]]) -> dict[str, float]:
    return {key: statistics.median(values) for key, values in series.items()}


def _machine() -> dict[str, Any]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cpus": available_cpus(),
        "system": platform.system(),
    }


def _versions() -> dict[str, str]:
    pins = {
        name: ", ".join(line for line in requirements.read_text().splitlines() if "==" in line)
        for name in RIVALS
        if (requirements := ROOT / "benchmarks" / "rivals" / f"{name}.txt").exists()
    }
    ours = ("ganery", "bentoml", "numpy", "onnxruntime", "pillow", "uvloop")
    return {"python": platform.python_version(), **{name: version(name) for name in ours}, **pins}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1 second, 1 round: does everything work?")
    parser.add_argument("--only", help=f"names with commas between them, of: {', '.join(SERVERS)}")
    parser.add_argument("--bundle", choices=BUNDLES, help="one of them; both if left out")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=int, default=5, help="whole seconds of each measurement (default: %(default)s)"
    )
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
        whole = not (arguments.quick or arguments.only or arguments.bundle)
        results_file, figure = PUBLISHED if whole else TRIED
        results_file.parent.mkdir(parents=True, exist_ok=True)
        results_file.write_text(json.dumps(measure(arguments), indent=2) + "\n")
    results = json.loads(results_file.read_text())
    print(report.markdown(results))
    figure.parent.mkdir(parents=True, exist_ok=True)
    report.draw(results, figure)
    print(f"{os.path.relpath(results_file)}, {os.path.relpath(figure)}", file=sys.stderr)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for; see `report` for how it is read."""
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
    if "ours" in servers and "fashion" in results["bundles"]:
        cases = results["bundles"]["fashion"]["limit"]
        best, many = max(cases, key=cases.__getitem__), MANY_SAMPLES_QUICKLY if arguments.quick else MANY_SAMPLES
        results["sample"] = _or_why_not(lambda: sample_many(rounds, seconds, best, many))
        results["start"] = _or_why_not(lambda: start_with_many(rounds))
    return results


if __name__ == "__main__":
    main()
