"""How fast `python -m service generate` writes pictures, beside the limit of this machine: python -m benchmarks.bulk

Rounds of both alternate, because the machine may change. What a command takes to start, load and end is told apart by
a command that makes next to nothing.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.limit import CASES, pictures_per_second
from service.cpus import available_cpus

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "models/fashion"
SHARD_SIZE = 1000
LIMIT = f"{available_cpus()} processes x 1 thread, batch 32"
"""What has been the best on every machine so far; `benchmarks.serving` tries all."""


def seconds_of(count: int) -> float:
    """That the command takes for so many pictures."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "service", "generate", "--model", BUNDLE.name, "--count", str(count)]
        began = time.monotonic()
        subprocess.run(
            [*command, "--shard-size", str(SHARD_SIZE), "--out", directory],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="pictures of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3, help="of the limit in a round (default: %(default)s)")
    given = parser.parse_args()
    assert LIMIT in CASES
    ratios = []
    for _ in range(given.rounds):
        limit = pictures_per_second(LIMIT, BUNDLE, "png", given.seconds)
        empty, full = seconds_of(1), seconds_of(given.count)
        rate = (given.count - 1) / (full - empty)
        ratios.append(rate / limit)
        print(
            f"limit {limit:,.0f} pictures/s; generate {rate:,.0f} pictures/s, {ratios[-1]:.2f} of it; "
            f"{empty:.1f} s of {full:.1f} are to start and end",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
