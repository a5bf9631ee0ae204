from service.cgroups import groups
from service.cpus import available_cpus
from service.memory import available_memory

ABOUT_V1 = "9:name=systemd:/\n4:memory:/apps/ganery\n2:cpu,cpuacct:/system.slice\n0::/\n"


def test_a_group_and_all_above_it_in_version_2(tmp_path):
    (tmp_path / "membership").write_text("0::/system.slice/ganery.service\n")
    found = groups("memory", tmp_path, tmp_path / "membership")
    assert list(found) == [
        tmp_path,
        tmp_path / "memory",
        tmp_path / "system.slice/ganery.service",
        tmp_path / "system.slice",
    ]


def test_each_controller_has_a_hierarchy_of_its_own_in_version_1(tmp_path):
    (tmp_path / "membership").write_text(ABOUT_V1)
    found = {controller: set(groups(controller, tmp_path, tmp_path / "membership")) for controller in ("cpu", "memory")}
    assert found == {
        "cpu": {tmp_path, tmp_path / "cpu", tmp_path / "cpu/system.slice"},
        "memory": {tmp_path, tmp_path / "memory", tmp_path / "memory/apps", tmp_path / "memory/apps/ganery"},
    }


def test_without_linux_there_is_the_top_alone(tmp_path):
    assert list(groups("cpu", tmp_path, tmp_path / "none")) == [tmp_path, tmp_path / "cpu"]


def test_the_tightest_of_them_holds(tmp_path):
    unit = tmp_path / "system.slice/ganery.service"
    unit.mkdir(parents=True)
    for group, quota, most in ((unit, "max 100000", "3000"), (unit.parent, "100000 100000", "2000")):
        (group / "cpu.max").write_text(quota)
        (group / "memory.max").write_text(most)
        (group / "memory.current").write_text("500")
        (group / "memory.stat").write_text("inactive_file 0\n")
    assert available_cpus([tmp_path, unit, unit.parent]) == 1
    assert available_memory([tmp_path, unit, unit.parent]) == 1500
