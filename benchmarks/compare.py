"""The measurements: every server beside the limit, long answers, many bundles. Figures are medians of the rounds."""

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import limit, load, sampling
from benchmarks.bundles import SHIPPED, alone, copies
from benchmarks.environments import Unavailable
from benchmarks.pictures import Pictures
from benchmarks.servers import OUR_SERVER, Running, Server, running
from service.cpus import available_cpus

CONNECTIONS = (1, 8, 32, 128)
SAMPLES = 1_000
ANSWERS = 4
"""Long answers of each round; one takes about a second."""
REFERENCE_SECONDS = 3.0
"""For the limit before and after each server."""
BUNDLES_AT_ONCE = 8


def compare(bundle: Path, servers: Iterable[Server], rounds: int, seconds: float) -> dict[str, Any]:
    """Every server once in every round, in another order each time, with the limit measured before and after each.

    A shared machine is twice as fast in one minute as in another: a server is compared with the limit of its minutes.
    """
    pictures, order = Pictures(bundle), list(servers)
    arrangements = {
        case: limit.pictures_per_second(case, bundle, "png", seconds)
        for case in tqdm(limit.CASES, desc=f"{bundle.name}, the limit")
    }
    best = max(arrangements, key=arrangements.__getitem__)
    measured: dict[str, list[dict[str, Any]]] = defaultdict(list)
    why_not: dict[str, str] = {}
    for server in order:  # a rival that has to be installed must not part the limit from what stands beside it
        try:
            server.command(port=0)
        except Unavailable as error:
            why_not[server.name] = str(error)

    def reference() -> dict[str, Any]:
        took = min(seconds, REFERENCE_SECONDS)
        threads = sorted({1, available_cpus()})
        return {
            "limit": limit.pictures_per_second(best, bundle, "png", took),
            "milliseconds_of_one_by_threads": {
                str(count): limit.milliseconds_of_one(bundle, count, took / len(threads)) for count in threads
            },
        }

    before = reference()
    with tqdm(total=rounds * len(order), desc=bundle.name) as progress:
        for round_ in range(rounds):
            for server in random.Random(round_).sample(order, len(order)):
                progress.set_postfix_str(server.title)
                if server.name not in why_not:
                    try:
                        with alone(bundle) as models, running(server, models, bundle.name) as started:
                            figures = _one_round(started, pictures, seconds)
                        after = reference()
                        measured[server.name].append({**figures, **_means(before, after)})
                        before = after
                    except Unavailable as error:
                        why_not[server.name] = str(error)
                        before = reference()
                progress.update()
    return {
        "picture": list(pictures.pixels([0], [0]).shape[1:]),
        "limit": arrangements,
        "servers": {
            server.name: {"title": server.title, "unavailable": why_not[server.name]}
            if server.name in why_not
            else {"title": server.title, **medians(measured[server.name]), "rounds": measured[server.name]}
            for server in order
        },
    }


def sample_many(rounds: int, seconds: float, many: int) -> dict[str, Any]:
    """`POST /sample` of the shipped bundle, beside the limit's best arrangement for what it is made of."""
    kinds: dict[str, limit.Kind] = {"tar": "png", "npz": "pixels"}
    cases = {kind: _best(SHIPPED, kind, seconds) for kind in kinds.values()}
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    growth: dict[str, float] = {}
    with alone(SHIPPED) as models, running(OUR_SERVER, models, SHIPPED.name) as started:
        for _ in tqdm(range(rounds), desc=f"/sample of {SAMPLES}"):
            for format_, kind in kinds.items():
                before = limit.pictures_per_second(cases[kind], SHIPPED, kind, seconds / 2)
                rates = [sampling.pictures_per_second(started, format_, SAMPLES) for _ in range(ANSWERS)]
                after = limit.pictures_per_second(cases[kind], SHIPPED, kind, seconds / 2)
                measured[format_].append(
                    {"pictures_per_second": statistics.harmonic_mean(rates), "limit": (before + after) / 2}
                )
    for format_ in tqdm(kinds, desc=f"/sample of {many}"):
        # A server that has made nothing yet, or growth would hide in what the last answer left behind.
        with alone(SHIPPED) as models, running(OUR_SERVER, models, SHIPPED.name) as started:
            growth[format_] = round(sampling.growth_megabytes(started, format_, many), 1)
    return {
        "count": SAMPLES,
        "many": many,
        "formats": {
            format_: {**medians(rounds_), "growth_megabytes": growth[format_], "rounds": rounds_}
            for format_, rounds_ in measured.items()
        },
    }


def _best(bundle: Path, kind: limit.Kind, seconds: float) -> str:
    """The arrangement that makes most."""
    rates = {
        case: limit.pictures_per_second(case, bundle, kind, seconds)
        for case in tqdm(limit.CASES, desc=f"{bundle.name}, the limit of {kind}")
    }
    return max(rates, key=rates.__getitem__)


def start_with_many(rounds: int) -> dict[str, Any]:
    """How long until `BUNDLES_AT_ONCE` bundles are served, and what they weigh."""
    starts = []
    with copies(SHIPPED, BUNDLES_AT_ONCE) as models:
        for _ in tqdm(range(rounds), desc=f"{BUNDLES_AT_ONCE} bundles"):
            with running(OUR_SERVER, models, SHIPPED.name) as started:
                load.wait_until_idle(started)  # every process opens all bundles, the last ones after it is ready
                starts.append({"ready_seconds": started.ready_seconds, "idle_megabytes": started.megabytes()})
    return {"bundles": BUNDLES_AT_ONCE, **medians(starts)}


def or_why_not(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, or why it could not be."""
    try:
        return measure()
    except Unavailable as error:
        return {"unavailable": str(error)}


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


def medians(rounds: list[Any]) -> Any:
    """The same nesting with the median of the rounds for each number; errors are added up."""
    first = rounds[0]
    if not isinstance(first, Mapping):
        return round(statistics.median(rounds), 4)
    median = {key: medians([round_[key] for round_ in rounds]) for key in first}
    if "errors" in first:
        median["errors"] = sum(round_["errors"] for round_ in rounds)
    return median


def _means(one: Any, other: Any) -> Any:
    """The same nesting with the mean of the two for each number."""
    return {key: _means(one[key], other[key]) for key in one} if isinstance(one, Mapping) else (one + other) / 2
