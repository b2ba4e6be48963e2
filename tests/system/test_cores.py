"""How many cores there are, by affinity and quota."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whit.errors import InputError
from whit.system.processor import cores
from whit.system.processor.cores import count_cores, count_free_cores, read_cgroup_quota


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHIT_CORES")


def _cgroup(tmp_path: Path, lines: str, **files: str) -> float | None:
    (tmp_path / "cgroup").write_text(lines)
    for name, content in files.items():
        path = tmp_path / "fs" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_cgroup_quota(tmp_path / "cgroup", tmp_path / "fs")


def test_quota_of_cgroup_v2(tmp_path: Path) -> None:
    assert _cgroup(tmp_path, "0::/job\n", job__cpuDOTmax="150000 100000\n") == 1.5


def test_quota_of_a_parent_holds_for_its_children(tmp_path: Path) -> None:
    files = {"a__cpuDOTmax": "200000 100000", "a__b__cpuDOTmax": "max 100000"}
    assert _cgroup(tmp_path, "0::/a/b\n", **files) == 2.0


def test_no_quota(tmp_path: Path) -> None:
    assert _cgroup(tmp_path, "0::/job\n", job__cpuDOTmax="max 100000\n") is None
    assert read_cgroup_quota(tmp_path / "missing", tmp_path) is None


def test_quota_of_cgroup_v1(tmp_path: Path) -> None:
    lines = "9:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n"
    folder = {
        "cpu,cpuacct__job__cpuDOTcfs_quota_us": "50000\n",
        "cpu,cpuacct__job__cpuDOTcfs_period_us": "100000\n",
    }
    assert _cgroup(tmp_path, lines, **folder) == 0.5
    (tmp_path / "fs/cpu,cpuacct/job/cpu.cfs_quota_us").write_text("-1\n")
    assert _cgroup(tmp_path, lines) is None


def test_container_that_sees_its_cgroup_as_the_root(tmp_path: Path) -> None:
    assert _cgroup(tmp_path, "0::/docker/of/the/host\n", cpuDOTmax="100000 100000\n") == 1.0


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (2.9, 2), (0.5, 1), (16.0, 4)])
def test_cores_are_those_of_affinity_and_quota(
    quota: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "allowed_cores", lambda: [0, 2, 3, 7])
    monkeypatch.setattr(cores, "read_cgroup_quota", lambda: quota)
    assert count_cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_of_a_real_process() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from whit.system.processor.cores import count_cores; print(count_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(("used", "expected"), [(0.0, 8), (0.5, 8), (0.6, 7), (3.2, 5), (8.0, 1)])
def test_free_cores(used: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "count_cores", lambda: 8)
    assert count_free_cores(used) == expected


@pytest.mark.parametrize("setting", ["0", "-1", "two", "1.5"])
def test_wrong_setting(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIT_CORES", setting)
    with pytest.raises(InputError, match=f"WHIT_CORES={setting}: expected a number of cores"):
        count_cores()
