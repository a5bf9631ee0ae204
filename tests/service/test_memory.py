import math

import pytest

from service.memory import available_memory


@pytest.fixture
def cgroup(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    return tmp_path


@pytest.fixture
def meminfo(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       16 kB\nMemAvailable:   8 kB\n")
    return tmp_path / "meminfo"


def test_the_smaller_of_the_host_and_the_container(cgroup, meminfo, tmp_path):
    assert available_memory([cgroup], meminfo) == 400
    assert available_memory([tmp_path / "none"], meminfo) == 8192


@pytest.fixture
def cgroup_v1(tmp_path):
    directory = tmp_path / "v1"
    directory.mkdir()
    (directory / "memory.limit_in_bytes").write_text("1000\n")
    (directory / "memory.usage_in_bytes").write_text("900\n")
    (directory / "memory.stat").write_text("inactive_file 100\ntotal_inactive_file 200\n")
    return directory


def test_control_groups_of_version_1(cgroup_v1, meminfo):
    assert available_memory([cgroup_v1], meminfo) == 300
    (cgroup_v1 / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # the kernel's unlimited
    assert available_memory([cgroup_v1], meminfo) == 8192


def test_an_unlimited_container(cgroup, meminfo):
    (cgroup / "memory.max").write_text("max\n")
    assert available_memory([cgroup], meminfo) == 8192


def test_a_container_that_is_full(cgroup, meminfo):
    (cgroup / "memory.current").write_text("2000\n")
    assert available_memory([cgroup], meminfo) == 0


def test_where_nobody_says(tmp_path):
    assert available_memory([tmp_path], tmp_path / "none") == math.inf
