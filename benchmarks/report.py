"""Results to what people read: Markdown tables, ratios first, and one figure."""

import math
import statistics
from itertools import cycle
from pathlib import Path
from typing import Any

OURS = "ours"

Rounds = list[dict[str, Any]]
"""What was measured of one server in each round, and what the limit was before and after it."""

# Okabe and Ito's colours, which stay apart for colour-blind readers; shapes stay apart in print.
MARKS = [
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
]


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    machine = results["machine"]
    parts = [
        f"Measured on {results['date']} on {machine['cpus']} CPUs ({machine['cpu']}), which the load generator shares: "
        f"{results['rounds']} rounds of {results['seconds']} s. Ratios are of one round "
        "each: their median, and in brackets the lowest and the highest. "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + "."
    ]
    for name, bundle in results["bundles"].items():
        parts += _bundle(name, bundle)
    if "sample" in results:
        parts += _sample(results["sample"])
    if "start" in results:
        parts += _start(results)
    return "\n\n".join(parts) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Share of the limit and p99 over connections, one row of panels for each bundle."""
    # Only this needs it, and it takes a second.
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import LogLocator, ScalarFormatter  # noqa: PLC0415

    bundles = results["bundles"]
    figure = Figure(figsize=(11, 0.8 + 3.6 * len(bundles)), layout="constrained")
    lines: dict[str, Any] = {}
    for row, (name, bundle) in zip(figure.subplots(len(bundles), 2, squeeze=False), bundles.items(), strict=True):
        lines.setdefault("limit, in process", row[0].axhline(1, color="grey", linestyle="--"))
        drawn = [server for key, server in _measured(bundle).items() if "+" not in key]  # extras are in the tables
        for server, (colour, marker) in zip(drawn, cycle(MARKS), strict=False):
            cells = server["by_connections"]
            connections = [int(count) for count in cells]
            shares = [statistics.median(_shares(server["rounds"], count)) or math.nan for count in cells]
            p99s = [cell["p99_ms"] or math.nan for cell in cells.values()]
            for panel, values in zip(row, (shares, p99s), strict=True):
                (line,) = panel.plot(connections, values, color=colour, marker=marker)
            lines.setdefault(server["title"], line)
        height, width, channels = bundle["picture"]
        shape = f"{name}: {width} x {height} {'grey' if channels == 1 else 'RGB'}"
        for panel, title in zip(
            row, ("pictures/s, share of the limit (more is better)", "p99, ms (less is better)"), strict=True
        ):
            panel.set_title(f"{shape}, {title}", fontsize=10)
            panel.set_xscale("log", base=2)
            panel.set_xticks(connections if drawn else [], [str(count) for count in connections] if drawn else [])
            panel.set_xlabel("connections")
            panel.grid(alpha=0.3)
        row[0].set_ylim(bottom=0)
        row[1].set_yscale("log")
        row[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        row[1].yaxis.set_major_formatter(ScalarFormatter())
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def _bundle(name: str, bundle: dict[str, Any]) -> list[str]:
    height, width, channels = bundle["picture"]
    case, rate = _limit(bundle)
    measured = _measured(bundle)
    counts = list(next(iter(measured.values()))["by_connections"]) if measured else []
    missing = [
        [server["title"], server["unavailable"]] for server in bundle["servers"].values() if "rounds" not in server
    ]
    shares = [
        [server["title"], *(_spread(_shares(server["rounds"], count)) for count in counts)]
        for server in measured.values()
    ]
    absolute = [
        [
            server["title"],
            *(_cell(cell) for cell in server["by_connections"].values()),
            f"{sum(cell['errors'] for cell in server['by_connections'].values()):,}",
            f"{server['idle_megabytes']['pss']:.0f} / {server['loaded_megabytes']['pss']:.0f}",
            f"{server['ready_seconds']:.1f}",
        ]
        for server in measured.values()
    ]
    return [
        f"### {name}: {width} x {height} {'grey' if channels == 1 else 'RGB'}",
        f"Pictures/s as a share of the limit ({case}; {rate:,.0f} pictures/s when arrangements were tried), by "
        "connections:",
        _table(["server", *counts], [*shares, *missing]),
        *_beside_others(measured, counts),
        "Pictures/s / p50 in ms / p99 in ms by connections, medians; errors; PSS in MB, idle / loaded; seconds to "
        "start:",
        _table(["server", *counts, "errors", "PSS", "ready"], absolute),
        *_one_connection(measured),
        "What was tried for the limit:",
        _table(["arrangement", "pictures/s"], [[case, f"{rate:,.0f}"] for case, rate in bundle["limit"].items()]),
    ]


def _shares(rounds: Rounds, count: str) -> list[float]:
    """Of the limit, round by round."""
    return [round_["by_connections"][count]["pictures_per_second"] / round_["limit"] for round_ in rounds]


def _beside_others(measured: dict[str, Any], counts: list[str]) -> list[str]:
    """What of the limit ours reaches, to what another server reaches in the same round."""
    ours = measured.get(OURS)
    others = [server for name, server in measured.items() if name != OURS]
    if ours is None or not others:
        return []
    rows = []
    for server in others:
        pairs = [zip(_shares(ours["rounds"], count), _shares(server["rounds"], count), strict=True) for count in counts]
        rows.append([server["title"], *(_spread([own / other for own, other in pair if other]) for pair in pairs)])
    return [
        f"Pictures/s of {ours['title']} as a ratio to those of another, each reckoned as a share of its limit, by "
        "connections:",
        _table(["beside", *counts], rows),
    ]


def _cell(cell: dict[str, float]) -> str:
    if not cell["pictures_per_second"]:
        return "none in time"
    return f"{cell['pictures_per_second']:,.0f} / {cell['p50_ms']:.1f} / {cell['p99_ms']:.1f}"


def _one_connection(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return []
    rows = []
    for server in measured.values():
        threads = list(server["milliseconds_of_one_by_threads"])
        one = [next(iter(round_["by_connections"].values()))["p50_ms"] for round_ in server["rounds"]]
        bare = [[round_["milliseconds_of_one_by_threads"][n] for round_ in server["rounds"]] for n in threads]
        ratios = [_spread([a / b for a, b in zip(one, ms, strict=True)]) for ms in bare]
        own = [f"{ratio} of {statistics.median(ms):.2f}" for ratio, ms in zip(ratios, bare, strict=True)]
        rows.append([server["title"], *own])
    header = [f"to a session of {n} thread{'s' * (n != '1')}, ms" for n in threads]
    return ["One connection, p50 over HTTP to one picture and its file in process:", _table(["server", *header], rows)]


def _sample(sample: dict[str, Any]) -> list[str]:
    heading = "### Many pictures in one answer, `POST /sample`"
    if "unavailable" in sample:
        return [heading, f"Not measured: {sample['unavailable']}."]
    rows = [
        [
            format_,
            _spread([round_["pictures_per_second"] / round_["limit"] for round_ in measured["rounds"]]),
            f"{measured['pictures_per_second']:,.0f}",
            f"{measured['limit']:,.0f}",
            f"{measured['growth_megabytes']:.0f}",
        ]
        for format_, measured in sample["formats"].items()
    ]
    growth = f"memory of {sample['many']:,}, MB over idle"
    header = ["format", "to limit", f"pictures/s of {sample['count']:,}", "limit, without the container", growth]
    return [heading, _table(header, rows)]


def _start(results: dict[str, Any]) -> list[str]:
    rows = []
    one = results["bundles"]["fashion"]["servers"][OURS]
    for bundles, start in (("1 bundle", one), (f"{results['start'].get('bundles')} bundles", results["start"])):
        if "unavailable" in start:
            rows.append([bundles, start["unavailable"]])
            continue
        memory = start["idle_megabytes"]
        rows.append([bundles, f"{start['ready_seconds']:.1f}", f"{memory['pss']:.0f}", f"{memory['rss']:.0f}"])
    return ["### Starting, and idle", _table(["served", "ready, s", "PSS, MB", "RSS, MB"], rows)]


def _limit(bundle: dict[str, Any]) -> tuple[str, float]:
    case: str = max(bundle["limit"], key=bundle["limit"].__getitem__)
    return case, bundle["limit"][case]


def _measured(bundle: dict[str, Any]) -> dict[str, Any]:
    return {name: server for name, server in bundle["servers"].items() if "unavailable" not in server}


def _spread(values: list[float]) -> str:
    """The median; the lowest and the highest too if there are several."""
    if not values:
        return "-"
    median = f"{statistics.median(values):.2f}"
    return median if len(values) == 1 else f"{median} ({min(values):.2f}-{max(values):.2f})"


def _table(header: list[str], rows: list[list[str]]) -> str:
    padded = [row + [""] * (len(header) - len(row)) for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *padded])
