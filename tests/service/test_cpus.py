import os

import pytest

from service.cpus import available_cpus, is_rationed

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", ALL), ("", ALL)]
)
def test_cgroup_v2(tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cpus([tmp_path]) == expected
    assert is_rationed([tmp_path]) == quota[:1].isdigit()


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", ALL), ("10000000", ALL)])
def test_cgroup_v1(tmp_path, quota, expected):
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus([tmp_path]) == expected
    assert is_rationed([tmp_path]) == (quota != "-1")


def test_without_cgroups(tmp_path):
    assert available_cpus([tmp_path]) == ALL
    assert not is_rationed([tmp_path])
