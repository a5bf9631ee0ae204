"""The simulation of docs/scaling.md: what must hold in it whatever the parameters."""

import json
from dataclasses import asdict

import pytest

from benchmarks.autoscaling import LOADS, POLICIES, RATE, RESULTS, Cluster, Policy, arrivals, np, simulate

CLUSTER = Cluster(pictures_per_second=40, queue_rows=64)


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_happens_when_there_is_little_to_do(name):
    run = simulate([(600, 0.5)], POLICIES[name], CLUSTER)
    assert (run.refused, run.changes, set(run.replicas)) == (0, 0, {2})


@pytest.mark.parametrize("name", POLICIES)
def test_an_overload_brings_replicas_and_ends(name):
    run = simulate([(900, 6.0)], POLICIES[name], CLUSTER)
    assert run.refused_by_then[60] > 0
    assert run.replicas[300] >= 6
    assert run.refused_by_then[-1] - run.refused_by_then[300] < 0.02 * run.refused_by_then[-1] or "wait" in name


def test_every_request_is_answered_or_refused():
    asked = sum(len(moments) for moments in arrivals([(100, 3.0)], CLUSTER, np.random.default_rng(1)))
    assert asked == pytest.approx(3 * 40 * 100, rel=0.05)
    run = simulate([(100, 3.0)], Policy(cpu=0.7), CLUSTER, seed=1)
    assert len(run.waits) + run.refused == asked
    assert max(run.waits) <= 64 / 40


def test_the_same_seed_is_the_same_run():
    one, other = (simulate([(200, 4.0)], POLICIES["both"], CLUSTER, seed=3) for _ in range(2))
    assert one == other


def test_a_wait_alone_lets_go_of_what_it_needs():
    """The finding of docs/scaling.md: no wait is no reason to keep replicas, until there is one again."""
    steady = [(3600, 2.6)]
    wait, both = (simulate(steady, POLICIES[name], CLUSTER) for name in ("wait above 0.5 s", "both"))
    assert wait.changes > 3 * both.changes
    assert wait.refused > both.refused


def test_the_committed_results_are_of_these_loads():
    results = json.loads(RESULTS.read_text())
    assert results["cluster"] == json.loads(json.dumps(asdict(Cluster(RATE))))
    assert [tuple(step) for step in results["load"]] == LOADS["bursts"]
    assert {run["policy"] for run in results["runs"]} == set(POLICIES)
