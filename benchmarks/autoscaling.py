"""How replicas follow bursts, simulated: scaled by how long pictures wait, by CPU, or by both.

    python -m benchmarks.autoscaling            # the tables and benchmarks/results/autoscaling.json
    python -m benchmarks.autoscaling --plot     # docs/images/autoscaling.png as well

Each request for one picture is an event. It goes to a replica that is ready, chosen at random as a Service does, and
waits there behind what has been accepted, or is refused if that is too much. Now and then Prometheus looks at each
replica, and now and then the autoscaler looks at what Prometheus has seen. What a replica makes in a second is
measured (benchmarks/results/serving.json); all else is stated in `Cluster`.
"""

import argparse
import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/autoscaling.json"
PLOT = ROOT / "docs/images/autoscaling.png"
SEED = 5
RATE = 830.0
"""Pictures/s of one replica: `fashion` with 128 connections, on the two CPUs of docs/scaling.md."""


@dataclass(frozen=True)
class Cluster:
    """What the simulation assumes. Seconds, unless it says otherwise."""

    pictures_per_second: float
    """Of one replica."""
    queue_rows: int = 1024
    """SERVICE_QUEUE_ROWS: more than so many wait at no replica."""
    min_replicas: int = 2
    max_replicas: int = 10
    scrape: float = 15.0
    """Between two looks of Prometheus, or of the metrics server, at a replica."""
    sync: float = 15.0
    """Between two looks of the autoscaler at these."""
    pull: float = 10.0
    """To get the image to a node: 169 MB compressed. 0 where it is there."""
    start: tuple[float, float] = (3.0, 5.0)
    """From the container's start to /readyz: measured 2.9 to 4.4."""
    notice: float = 3.0
    """Until the probe and the Service know that a replica is ready: the probe comes every 2."""
    quiet: float = 300.0
    """Stabilisation before replicas are removed, as in the chart: then one a minute."""
    tolerance: float = 0.1
    """Of the autoscaler: a ratio so near to 1 changes nothing."""


@dataclass(frozen=True)
class Policy:
    """What the number of replicas follows; with both, whichever asks for more, as Kubernetes does."""

    wait_seconds: float | None = None
    cpu: float | None = None
    """Share of what a replica can compute."""


POLICIES: dict[str, Policy] = {
    "wait above 0.5 s": Policy(wait_seconds=0.5),
    "CPU above 70 %": Policy(cpu=0.7),
    "both": Policy(wait_seconds=0.5, cpu=0.7),
}

Load = list[tuple[float, float]]
"""Seconds, and pictures asked for in each of them, in replicas' worth."""

LOADS: dict[str, Load] = {
    # Ten minutes of six replicas' worth, a minute of eight, twenty minutes that two replicas do not quite manage.
    "bursts": [(300, 0.8), (600, 6.0), (600, 0.8), (60, 8.0), (540, 0.8), (1200, 2.6), (300, 0.8)],
}


@dataclass
class Replica:
    """One server: a queue in front of what it makes in a second."""

    ready: float
    """When requests reach it."""
    free: float = 0.0
    """When it would have finished all it has accepted."""
    given: float = 0.0
    """Seconds of work accepted so far."""
    seen_done: float = 0.0
    seen_wait: float = 0.0
    seen_cpu: float | None = None
    """None until it has been seen twice."""

    def look(self, now: float, since: float) -> None:
        """What Prometheus sees."""
        self.seen_wait = max(0.0, self.free - now)
        done = self.given - self.seen_wait
        self.seen_cpu = min(1.0, (done - self.seen_done) / since)
        self.seen_done = done


@dataclass
class Run:
    """What happened."""

    waits: list[float] = field(default_factory=list)
    """Of each picture that was accepted."""
    refused: int = 0
    replica_seconds: float = 0.0
    changes: int = 0
    """How often the number of replicas was changed."""
    times: list[float] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    worst_wait: list[float] = field(default_factory=list)
    refused_by_then: list[int] = field(default_factory=list)
    """The last three at each of `times`."""

    def summary(self) -> dict[str, float]:
        waits = np.sort(np.array(self.waits))
        asked = len(self.waits) + self.refused
        return {
            "asked": asked,
            "refused_percent": 100 * self.refused / asked,
            "p50_wait_seconds": float(waits[len(waits) // 2]),
            "p99_wait_seconds": float(waits[int(len(waits) * 0.99)]),
            "replica_minutes": self.replica_seconds / 60,
            "most_replicas": max(self.replicas),
            "changes": self.changes,
        }


def arrivals(load: Load, cluster: Cluster, random: np.random.Generator) -> Iterator[list[float]]:
    """When requests come, second by second: a Poisson process."""
    second = 0
    for seconds, worth in load:
        for _ in range(int(seconds)):
            count = random.poisson(worth * cluster.pictures_per_second)
            yield (second + np.sort(random.random(count))).tolist()
            second += 1


class Autoscaler:
    """Kubernetes' HorizontalPodAutoscaler with the chart's behaviour."""

    def __init__(self, policy: Policy, cluster: Cluster) -> None:
        self._policy, self._cluster = policy, cluster
        self._wanted: deque[tuple[float, int]] = deque()
        self._last_removal = -math.inf

    def replicas(self, now: float, replicas: list[Replica]) -> int:
        """How many there shall be."""
        cluster, current = self._cluster, len(replicas)
        seen = [replica for replica in replicas if replica.seen_cpu is not None]
        proposals = []
        if self._policy.wait_seconds is not None:
            proposals.append(self._proposal([each.seen_wait for each in seen], self._policy.wait_seconds, current))
        if self._policy.cpu is not None:
            proposals.append(self._proposal([each.seen_cpu or 0.0 for each in seen], self._policy.cpu, current))
        wanted = min(max(*proposals, cluster.min_replicas), cluster.max_replicas)
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - cluster.quiet:
            self._wanted.popleft()
        if wanted > current:
            # Kubernetes' own limit: twice as many or four more, whichever is more, every 15 seconds.
            return min(wanted, max(2 * current, current + 4))
        # Down to the most that was wanted lately, one a minute.
        if max(wanted for _, wanted in self._wanted) < current and now - self._last_removal >= 60:
            self._last_removal = now
            return current - 1
        return current

    def _proposal(self, seen: list[float], target: float, current: int) -> int:
        if not seen:
            return current
        missing = current - len(seen)
        ratio = sum(seen) / len(seen) / target
        if missing:  # what is not seen yet counts for nothing on the way up, for its target on the way down
            other = (sum(seen) + (0 if ratio > 1 else missing * target)) / current / target
            ratio = 1.0 if (ratio > 1) != (other > 1) else other
        return current if abs(ratio - 1) <= self._cluster.tolerance else math.ceil(ratio * current)


def simulate(load: Load, policy: Policy, cluster: Cluster, seed: int = SEED) -> Run:
    """Run a load against a policy."""
    random = np.random.default_rng([seed, 1])  # for the arrivals to be the same whatever the policy
    scaler, run = Autoscaler(policy, cluster), Run()
    replicas = [Replica(ready=0.0) for _ in range(cluster.min_replicas)]
    work = 1 / cluster.pictures_per_second
    longest = cluster.queue_rows * work
    for second, moments in enumerate(arrivals(load, cluster, np.random.default_rng(seed))):
        ready = [replica for replica in replicas if replica.ready <= second]
        for moment, choice in zip(moments, random.integers(len(ready), size=len(moments)).tolist(), strict=True):
            replica = ready[choice]
            wait = max(0.0, replica.free - moment)
            if wait > longest:
                run.refused += 1
                continue
            run.waits.append(wait)
            replica.free = moment + wait + work
            replica.given += work
        now = second + 1.0
        run.replica_seconds += len(replicas)
        run.times.append(now)
        run.replicas.append(len(ready))
        run.worst_wait.append(max(replica.free - now for replica in ready))
        run.refused_by_then.append(run.refused)
        if now % cluster.scrape == 0:
            for replica in ready:
                replica.look(now, cluster.scrape)
        if (now + cluster.sync // 2) % cluster.sync == 0:
            wanted = scaler.replicas(now, replicas)
            run.changes += wanted != len(replicas)
            for _ in range(wanted - len(replicas)):
                delay = cluster.pull + random.uniform(*cluster.start) + cluster.notice
                replicas.append(Replica(ready=now + delay))
            del replicas[max(wanted, 1) :]  # the youngest; what it has accepted it still answers
    return run


def plot(load: Load, runs: dict[str, Run], cluster: Cluster, path: Path) -> None:
    """Load, replicas, waiting, refusals over time."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only this needs it, and it takes a second

    figure = Figure(figsize=(11, 8), layout="constrained")
    replicas, waits, refusals = figure.subplots(3, 1, sharex=True)
    asked = [worth for seconds, worth in load for _ in range(int(seconds))]
    replicas.plot(
        np.arange(len(asked)) / 60, asked, color="black", linestyle=":", label="asked for, in replicas' worth"
    )
    for name, run in runs.items():
        minutes = np.array(run.times) / 60
        replicas.step(minutes, run.replicas, label=f"ready, by {name}")
        waits.plot(minutes, run.worst_wait, linewidth=0.8, label=name)
        refusals.plot(minutes, np.array(run.refused_by_then) / 1000, label=name)
    replicas.set_title(f"Replicas of {cluster.pictures_per_second:.0f} pictures/s each (simulated)", fontsize=10)
    waits.set_title("longest wait at any replica, s", fontsize=10)
    refusals.set_title("refused so far, thousand pictures", fontsize=10)
    refusals.set_xlabel("minutes")
    replicas.legend(fontsize=8)
    for panel in (replicas, waits, refusals):
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoscaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plot", action="store_true", help="draw docs/images/autoscaling.png; needs the extra bench")
    parser.add_argument("--rate", type=float, default=RATE, help="pictures/s of one replica (default: %(default)g)")
    given = parser.parse_args()
    rate = given.rate
    clusters = {
        "as stated": Cluster(rate),
        "image on the node": Cluster(rate, pull=0),
        "a node must be started": Cluster(rate, pull=120),
        "scraped every 5 s": Cluster(rate, scrape=5),
    }
    load, results = LOADS["bursts"], []
    print("| circumstances | scaled by | refused, % | p99 wait, s | replica-minutes | most | changes |")
    print("|---|---|---|---|---|---|---|")
    for circumstances, cluster in clusters.items():
        runs = {name: simulate(load, policy, cluster) for name, policy in POLICIES.items()}
        for name, run in runs.items():
            found = run.summary()
            results.append({"circumstances": circumstances, "policy": name, **found})
            print(
                f"| {circumstances} | {name} | {found['refused_percent']:.1f} | {found['p99_wait_seconds']:.2f} "
                f"| {found['replica_minutes']:.0f} | {found['most_replicas']} | {found['changes']} |",
                flush=True,
            )
        if given.plot and circumstances == "as stated":
            plot(load, runs, cluster, PLOT)
    content = {"seed": SEED, "load": load, "cluster": asdict(clusters["as stated"]), "runs": results}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
