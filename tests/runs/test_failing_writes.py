"""A crash or a full disk at any system call leaves a checkpoint that loads.

`strace` kills the process, or refuses the call, at the n-th system call of a kind; a small
file system in memory is really full.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.injection import Fault
from harness.processes import ENVIRONMENT, WHIT, evidence, fresh, whit
from training.test_kill_and_resume import kill_after
from whit.training.checkpoint import find_latest_checkpoint

TRAIN = ("train", "easy.toml", "--out", "run", "--threads", "1", "--quiet")
RESUME = ("train", "--resume", "run", "--quiet")
CALLS = "openat,write,fsync,rename,mkdir,unlink,unlinkat"

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


def calls_on_the_run(workplace: Path) -> list[tuple[str, int, str]]:
    """Return every call that touches the run's files as (kind, its place among its kind, what).

    Places are counted in the process itself, as strace's own `when` counts them: not together
    with those of the processes that it starts. What is the file's name, without digests and
    numbers.
    """
    trace = workplace / "trace"
    done = fresh(
        workplace, *TRAIN, before=("strace", "-f", "-y", "-qq", "-o", str(trace), "-e", CALLS)
    )
    assert done.returncode == 0, done.stderr
    main = ""
    counts: dict[str, int] = {}
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match is None:
            continue
        pid, kind, arguments = match.groups()
        main = main or pid
        if pid != main:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        # The paths of the call: names given, and what a descriptor leads to.
        if "whit-new" in arguments or f"{workplace}/run" in arguments or '"run' in arguments:
            name = re.sub(r"[0-9a-f]{8,}|\d+", "#", arguments.split(",")[0])
            found.append((kind, counts[kind], name))
    shutil.rmtree(workplace / "run")
    return found


def crash_at(workplace: Path, kind: str, place: int) -> None:
    """Kill a training at the `place`-th call of a kind."""
    shutil.rmtree(workplace / "run", ignore_errors=True)
    inject = f"inject={kind}:signal=SIGKILL:when={place}"
    done = fresh(workplace, *TRAIN, before=("strace", "-f", "-qq", "-o", "/dev/null", "-e", inject))
    assert done.returncode in (137, -9), (kind, place, done.stderr)


def resumes(workplace: Path, undisturbed: Path) -> None:
    code, said = whit(workplace, *(RESUME if (workplace / "run").exists() else TRAIN))
    assert code == 0, said
    assert evidence(workplace / "run") == evidence(undisturbed)
    assert not list(workplace.glob(".whit-new*"))  # what a killed maker left is swept up


@pytest.mark.parametrize(
    "fault",
    [
        Fault("open", 5),
        Fault("write", 6),
        Fault("flush", 2),  # while the folder is made
        Fault("fsync", 8),
        Fault("rename", 5),
        Fault("folder fsync", 7),
    ],
    ids=lambda fault: fault.call,
)
def test_a_crash_at_a_call(workplace: Path, undisturbed: Path, fault: Fault) -> None:
    code, said = whit(workplace, *TRAIN, fault=fault)
    assert code == -signal.SIGKILL, said
    run = workplace / "run"
    if run.exists():
        checkpoint, damaged = find_latest_checkpoint(run / "checkpoint", 1_000_000)
        assert checkpoint is not None
        assert damaged == []
    resumes(workplace, undisturbed)


@needs_strace
@pytest.mark.slow
def test_a_crash_at_every_system_call(workplace: Path, undisturbed: Path) -> None:
    calls = calls_on_the_run(workplace)
    assert len(calls) > 60
    for kind, place, _ in calls:
        crash_at(workplace, kind, place)
        run = workplace / "run"
        if run.exists() and not (run / "result.json").exists():
            checkpoint, damaged = find_latest_checkpoint(run / "checkpoint", 1_000_000)
            assert checkpoint is not None
            assert damaged == []
        resumes(workplace, undisturbed)


@needs_strace
@pytest.mark.slow
def test_a_file_comes_to_the_disk_before_its_name_does(workplace: Path) -> None:
    """write, fsync of the file, rename, fsync of the folder: in this order for each checkpoint."""
    kinds = [
        kind
        for kind, _, what in calls_on_the_run(workplace)
        if kind in ("write", "fsync", "rename") and "checkpoint" in what
    ]
    text = " ".join(kinds)
    assert text.count("rename") >= 5
    assert re.fullmatch(r"((write )+fsync rename fsync ?)+", text), text


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path, undisturbed: Path) -> Path:
    """A workplace with a run that was killed after two epochs, with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copy(easy_npz, folder / "easy.npz")
    shutil.copy(undisturbed.parent / "easy.toml", folder / "easy.toml")
    kill_after(folder, 2)
    assert len(list(folder.glob("run/checkpoint/*.safetensors"))) == 2
    return folder


def damages(content: bytes, count: int) -> Iterator[bytes]:
    for i in range(count):
        yield content[: len(content) * i // count]
    for i in range(count):
        place = (2 * i + 1) * len(content) // (2 * count)
        turned = bytearray(content)
        turned[place] ^= 1 << (i % 8)
        yield bytes(turned)


def test_every_cut_and_every_turned_bit_is_detected(stopped: Path) -> None:
    """64 truncations and 64 single-bit flips: the one before is used, 128 of 128 times."""
    folder = stopped / "run" / "checkpoint"
    before, newest = sorted(folder.glob("*.safetensors"))
    content = newest.read_bytes()
    detected = 0
    for damaged in damages(content, 64):
        newest.write_bytes(damaged)
        found, passed_over = find_latest_checkpoint(folder, 1_000_000)
        assert found is not None
        detected += found.path == before and passed_over == [newest]
    newest.write_bytes(content)
    assert detected == 128


def resume_damaged(stopped: Path, undisturbed: Path, tmp_path: Path, damaged: bytes) -> None:
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(stopped, place)
    before, newest = sorted((place / "run" / "checkpoint").glob("*.safetensors"))
    newest.write_bytes(damaged)
    code, said = whit(place, "train", "--resume", "run")
    assert code == 0, said
    assert f"run/checkpoint/{newest.name}: damaged and ignored." in said.replace("\n ", "")
    assert f"Resuming from run/checkpoint/{before.name}." in said
    assert evidence(place / "run") == evidence(undisturbed)


def test_a_run_resumes_from_the_checkpoint_before(
    stopped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    content = max(stopped.glob("run/checkpoint/*.safetensors")).read_bytes()
    for damaged in list(damages(content, 64))[20:128:50]:
        resume_damaged(stopped, undisturbed, tmp_path, damaged)


@pytest.mark.slow
def test_a_run_resumes_from_the_checkpoint_before_each_time(
    stopped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    content = max(stopped.glob("run/checkpoint/*.safetensors")).read_bytes()
    for damaged in damages(content, 64):
        resume_damaged(stopped, undisturbed, tmp_path, damaged)


def test_without_any_valid_checkpoint_it_starts_again(
    stopped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "place")
    for path in tmp_path.glob("place/run/checkpoint/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    code, said = whit(tmp_path / "place", "train", "--resume", "run")
    assert code == 0, said
    assert said.count("damaged and ignored.") == 2
    assert "Resuming from the beginning: there is no valid checkpoint." in said
    assert evidence(tmp_path / "place" / "run") == evidence(undisturbed)


NAMES = ["log.jsonl", "weights.safetensors", "audit.txt", "result.json"]


def no_space(workplace: Path, undisturbed: Path, name: str, code: int, said: str) -> None:
    """What must hold when there was no space left for a file."""
    assert code == 3, said
    said = said.strip()
    assert said.startswith(f"whit: run/{name}: cannot be written: No space left on device. ")
    assert re.search(r"Free \d+\.\d MB or more on the disk of run \(\d+\.\d MB free there\)", said)
    assert said.endswith(", then resume with: whit train --resume run")
    assert not list((workplace / "run").glob(".*.tmp"))
    checkpoint, damaged = find_latest_checkpoint(workplace / "run" / "checkpoint", 1_000_000)
    assert checkpoint is not None
    assert damaged == []
    resumes(workplace, undisturbed)


@pytest.mark.parametrize("name", NAMES)
def test_no_space_left_for_a_file(workplace: Path, undisturbed: Path, name: str) -> None:
    part = name if name == "log.jsonl" else f".{name}.tmp"
    code, said = whit(workplace, *TRAIN, fault=Fault("write", 1, part, "no space"))
    no_space(workplace, undisturbed, name, code, said)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_system_refuses_to_write_a_file(workplace: Path, undisturbed: Path, name: str) -> None:
    part = name if name == "log.jsonl" else f".{name}.tmp"
    refuse = ("-P", str(workplace / "run" / part), "-e", "inject=write:error=ENOSPC")
    done = fresh(workplace, *TRAIN, before=("strace", "-f", "-qq", "-o", "/dev/null", *refuse))
    no_space(workplace, undisturbed, name, done.returncode, done.stderr)


def can_mount() -> bool:
    script = "mount -t tmpfs none /mnt"
    made = ["unshare", "-m", *(["-r"] if os.getuid() else []), "sh", "-c", script]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(made, capture_output=True).returncode
    )


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
@pytest.mark.parametrize("kilobytes", [8, 72])
def test_a_disk_that_is_really_full(workplace: Path, undisturbed: Path, kilobytes: int) -> None:
    """On a file system of its own: too small for the folder, or for the next checkpoint."""
    disk = workplace / "disk"
    disk.mkdir()
    train = " ".join([*WHIT, *TRAIN]).replace("--out run", "--out disk/run")
    script = f"""
        mount -t tmpfs -o size={kilobytes}k none disk || exit 99
        {train} 2> said; echo $? > code
        ls -A disk > left; ls disk/run/checkpoint > checkpoints 2> /dev/null
        mount -o remount,size=10m disk
        if [ -d disk/run ]; then {" ".join(WHIT)} train --resume disk/run --quiet
        else {train}; fi > resumed 2>&1; echo $? > resumed-code
        cp -r disk/run run
    """
    outside = ["unshare", "-m", *(["-r"] if os.getuid() else [])]
    subprocess.run([*outside, "sh", "-c", script], cwd=workplace, env=ENVIRONMENT, check=True)
    said = (workplace / "said").read_text().strip()
    assert (workplace / "code").read_text() == "3\n", said
    assert "No space left on device. Free " in said
    if (workplace / "left").read_text():
        assert (workplace / "left").read_text() == "run\n"
        assert said.endswith(", then resume with: whit train --resume disk/run")
        assert ".safetensors" in (workplace / "checkpoints").read_text()
    else:
        assert said.endswith("Nothing was started.")
    assert (workplace / "resumed-code").read_text() == "0\n", (workplace / "resumed").read_text()
    assert evidence(workplace / "run") == evidence(undisturbed)


def test_stopped_on_a_full_disk(workplace: Path, undisturbed: Path) -> None:
    """What cannot be saved at a stop is said; the checkpoint before is still there."""
    fault = Fault("write", 5, ".tmp", "interrupt")  # after the folder and one epoch are written
    code, said = whit(workplace, *TRAIN, fault=fault)
    assert code == 3, said
    assert (workplace / "run" / "log.jsonl").exists()
    said = " ".join(said.split())
    assert re.search(r"stopped by SIGINT .*, but not saved: .* No space left on device", said)
    resumes(workplace, undisturbed)
