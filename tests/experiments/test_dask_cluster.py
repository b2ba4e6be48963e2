"""Studies on a real dask cluster whose workers, driver and scheduler are killed."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.test_study import NET, OWN
from harness.clusters import Dask, free_port, started, wait_for_workers
from harness.processes import Command, evidence, fresh, whit
from waiting import wait_until
from whit.experiments.execution import dask_cluster
from whit.models.user_code import user_model_sha256
from whit.runs.code_version import compatibility_versions


def test_what_workers_are_asked_names_code_that_exists() -> None:
    """No import shows it, so a module that is moved or renamed would break it unseen."""
    assert eval(dask_cluster._QUERY) == compatibility_versions()


@pytest.fixture
def cluster(workplace: Path) -> Iterator[Dask]:
    with started(workplace, 2) as found:
        yield found


def study(seeds: int, *more: str) -> tuple[str, ...]:
    return ("study", "easy.toml", "--seeds", f"{seeds}", *more)


def on(cluster: Dask, seeds: int) -> tuple[str, ...]:
    return study(seeds, "--cluster", cluster.address, "--out", "far")


def runs(place: Path, out: str) -> dict[str, Path]:
    return {path.name: path for path in place.glob(f"{out}/easy-*/seed-*")}


def wait_for(command: Command, place: Path, count: int) -> None:
    wait_until(lambda: len(runs(place, "far")) >= count, command)


def same_as_local(place: Path, seeds: int) -> None:
    """Every run is there exactly once, and equal to the one of this machine's own workers."""
    far, near = runs(place, "far"), runs(place, "near")
    assert set(far) == set(near) == {f"seed-{seed}" for seed in range(seeds)}
    for name, run in far.items():
        assert evidence(run) == evidence(near[name])
    assert not list(place.glob("far/.whit-new*"))


def test_killed_workers_and_a_killed_driver_on_a_cluster(workplace: Path, cluster: Dask) -> None:
    command = Command.start(workplace, *on(cluster, 3))
    wait_for(command, workplace, 1)
    os.killpg(cluster.workers[0].pid, signal.SIGKILL)
    cluster.add_worker()
    wait_for(command, workplace, 2)
    command.signal(signal.SIGKILL)
    command.wait()
    code, said = whit(workplace, *on(cluster, 3))
    assert code == 0, said
    code, said = whit(workplace, *study(3, "--out", "near"))
    assert code == 0, said
    same_as_local(workplace, 3)


@pytest.mark.slow
def test_sixty_runs_with_workers_and_driver_killed(workplace: Path, cluster: Dask) -> None:
    rng = random.Random(5)
    kills = 0
    for _ in range(4):
        command = Command.start(workplace, *on(cluster, 60))
        had = len(runs(workplace, "far"))
        for _ in range(2):
            wait_for(command, workplace, min(60, had + rng.randint(2, 6)))
            victim = cluster.workers[rng.randrange(len(cluster.workers))]
            if victim.poll() is None:
                os.killpg(victim.pid, signal.SIGKILL)
                kills += 1
            cluster.add_worker()
        time.sleep(rng.uniform(0, 3))
        command.signal(signal.SIGKILL)
        command.wait()
    assert kills >= 4
    code, said = whit(workplace, *on(cluster, 60))
    assert code == 0, said
    code, said = whit(workplace, *study(60, "--out", "near"))
    assert code == 0, said
    same_as_local(workplace, 60)


@pytest.mark.slow
def test_a_scheduler_that_goes_away_is_named_and_nothing_is_lost(
    workplace: Path, cluster: Dask
) -> None:
    command = Command.start(workplace, *on(cluster, 40))
    wait_for(command, workplace, 1)
    os.killpg(cluster.scheduler.pid, signal.SIGKILL)
    assert command.wait() == 3, command.said
    assert "the scheduler or all of its workers are gone" in command.said
    assert "Traceback" not in command.said
    assert all((run / "result.json").exists() for run in runs(workplace, "far").values())


@pytest.mark.slow
def test_ctrl_c_on_a_cluster(workplace: Path, cluster: Dask) -> None:
    command = Command.start(workplace, *on(cluster, 40))
    wait_for(command, workplace, 1)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.said
    assert len(runs(workplace, "far")) < 40  # the others are not waited for
    assert "Run the same command again to resume" in command.said


def test_a_worker_keeps_no_run_of_another_model(workplace: Path) -> None:
    """The model's file is edited on every machine, and the study started again."""
    (workplace / "net.py").write_text(NET)
    recipe = (workplace / "easy.toml").read_text().replace(*OWN).replace("epochs = 4", "epochs = 1")
    (workplace / "easy.toml").write_text(recipe)
    with started(workplace, 1) as cluster:
        for kernel in ("5, 4", "3, 2"):
            (workplace / "net.py").write_text(NET.replace("5, 4", kernel))
            shutil.rmtree(workplace / "far", ignore_errors=True)
            code, said = whit(workplace, *on(cluster, 1))
            assert code == 0, said
            (run,) = runs(workplace, "far").values()
            environment = json.loads((run / "environment.json").read_text())
            source = user_model_sha256(f"{workplace / 'net.py'}:Net")
            assert environment["model_sha256"] == source


def test_another_whit_or_torch_is_refused(workplace: Path) -> None:
    """A worker whose whit has one line more, one whose torch says another version, one good."""
    import whit as package

    other = workplace / "other"
    shutil.copytree(Path(package.__file__).parent, other / "whit")
    with (other / "whit" / "changed.py").open("a") as file:
        file.write("# changed\n")
    torch = workplace / "torch"
    (torch / "torch-2.10.0.dist-info").mkdir(parents=True)
    (torch / "torch-2.10.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.10.0\n")
    with started(workplace, 0) as cluster:
        changed = cluster.add_worker({"PYTHONPATH": f"{other}{os.pathsep}{path()}"})
        older = cluster.add_worker({"PYTHONPATH": f"{torch}{os.pathsep}{path()}"})
        wait_for_workers(cluster, 2)
        code, said = whit(workplace, *on(cluster, 1))
        assert code == 2, said
        assert "none of its workers is compatible" in said
        assert said.count("it has whit ") == 1
        assert said.count("it has torch 2.10.0; expected torch ") == 1
        cluster.add_worker()
        wait_for_workers(cluster, 3)
        code, said = whit(workplace, *on(cluster, 2))
        assert code == 0, said
        assert said.count("whit: refused worker") == 2
        assert changed.poll() is None
        assert older.poll() is None


def path() -> str:
    return os.environ.get("PYTHONPATH", "")


def test_a_cluster_that_is_not_there(workplace: Path) -> None:
    code, said = whit(workplace, *study(1, "--cluster", f"tcp://127.0.0.1:{free_port()}"))
    assert code == 2, said
    assert "no scheduler responds" in said
    assert said.count("\n") <= 2
    code, said = whit(workplace, *study(1, "--cluster", "nonsense://"))
    assert code == 2, said
    assert "--cluster nonsense://" in said
    code, said = whit(workplace, *study(1, "--cluster", "tcp://127.0.0.1:1", "--jobs", "2"))
    assert code == 2, said
    assert "--jobs: a cluster runs as many" in said


def test_a_cluster_without_workers(
    workplace: Path,
) -> None:
    with started(workplace, 0) as cluster:
        code, said = whit(workplace, *on(cluster, 1))
    assert code == 2, said
    assert f"it has no workers. Start some: dask worker {cluster.address}" in said


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "several-machines.md"


def commands_of_the_page(program: str) -> list[str]:
    """The lines of the page that call a program, continuation lines joined."""
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith(program)]


@pytest.mark.slow
def test_tls_as_the_page_says(workplace: Path) -> None:
    for command in commands_of_the_page("openssl"):
        subprocess.run(shlex.split(command), cwd=workplace, check=True, capture_output=True)
    (line,) = commands_of_the_page("dask scheduler --port 8786 --protocol tls")
    words = shlex.split(line)
    security = tuple(words[words.index("--tls-ca-file") :])
    with started(workplace, 1, security) as cluster:
        exports = commands_of_the_page("export DASK")
        assert len(exports) == 3
        told = [export.removeprefix("export ").split("=") for export in exports]
        environment = dict(told)
        done = fresh(workplace, *on(cluster, 2), environment=environment)
        while "it has no workers" in done.stderr:
            assert cluster.workers[0].poll() is None
            done = fresh(workplace, *on(cluster, 2), environment=environment)
        assert done.returncode == 0, done.stderr
        assert set(runs(workplace, "far")) == {"seed-0", "seed-1"}
        done = fresh(workplace, *on(cluster, 3))
        assert done.returncode == 2, done.stderr
        assert "--cluster tls://" in done.stderr
        assert "Traceback" not in done.stderr
