"""Nothing that was acknowledged is lost: processes killed under load, and power cut under the file system."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hot_writer
import pytest

from archiver import SessionManager


class Writer:
    """One writing process and everything it said was stored."""

    def __init__(self, directory: Path, durability: str, seed: int) -> None:
        self._reading, writing = os.pipe()
        arguments = [sys.executable, hot_writer.__file__, str(directory), durability, str(writing), str(seed)]
        self.process = subprocess.Popen(arguments, pass_fds=[writing], stderr=subprocess.PIPE)
        os.close(writing)
        self._heard = b""

    def hear(self, seconds: float) -> bool:
        """Wait for acknowledgements; False if none came."""
        if not select.select([self._reading], [], [], seconds)[0]:
            return False
        data = os.read(self._reading, 1 << 16)
        self._heard += data
        return bool(data)

    def stop(self, signal_number: int) -> None:
        os.kill(self.process.pid, signal_number)

    def finish(self) -> list[tuple[str, str]]:
        """Kill it, and return (session, text) of all complete acknowledgements."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        error = self.process.stderr.read()
        assert not error, error.decode()
        while self.hear(0):
            pass
        os.close(self._reading)
        self.process.stderr.close()
        lines = self._heard.split(b"\n")[:-1]
        return [(sid, text) for sid, _, text in (line.decode().partition(" ") for line in lines)]


def check(directory: Path, acknowledged: list[tuple[str, str]]) -> None:
    """Everything acknowledged is there once, in the order of each writer; every session can be read."""
    with SessionManager(directory) as manager:
        stored: dict[str, list[str]] = {}
        for i in range(hot_writer.SESSIONS):
            session = manager.get_session(f"s{i}")
            if session is not None:
                turns = [m.content or "" for m in session.chat_history]
                stored[f"s{i}"] = turns
                stored[f"s{i}/acts"] = [a.content or "" for a in session.interactions if a.action_type == "note"]
        with manager.hot.reader() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            counted = connection.execute(
                "SELECT sum(n_messages), sum(n_interactions) FROM session UNION ALL "
                "SELECT sum(kind = 0), sum(kind = 1) FROM event"
            ).fetchall()
            assert counted[0] == counted[1]
    everything = Counter(text for texts in stored.values() for text in texts)
    assert not [text for _, text in acknowledged if everything[text] == 0]
    assert not [text for text, times in everything.items() if times > 1]
    for texts in stored.values():
        for writer in {text.partition(":")[0] for text in texts}:
            numbers = [int(text.partition(":")[2]) for text in texts if text.startswith(f"{writer}:")]
            assert numbers == sorted(numbers)


def kill_under_load(directory: Path, kills: int, durability: str) -> int:
    """Three writers; one of them is killed and replaced, again and again. Returns what was acknowledged."""
    chance = random.Random(kills)
    writers = [Writer(directory, durability, seed) for seed in range(3)]
    acknowledged: list[tuple[str, str]] = []
    for kill in range(kills):
        victim = writers[kill % 3]
        assert victim.hear(60), "the writer never got anywhere"
        time.sleep(chance.uniform(0.0, 0.06))
        acknowledged += victim.finish()
        writers[kill % 3] = Writer(directory, durability, 1000 + kill)
    for writer in writers:
        acknowledged += writer.finish()
    check(directory, acknowledged)
    return len(acknowledged)


def test_kills_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    assert kill_under_load(tmp_path / "hot", kills=6, durability="interval") > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_kills_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    assert kill_under_load(tmp_path / "hot", kills=200, durability="process") > 2000


# ------------------------------------------------------------------ power cuts


def run(*arguments: str | Path) -> str:
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr}")
    return done.stdout.strip()


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """An ext4 image whose journal commits by itself only every 300 s: what was not synced is not in the file."""
    at.mkdir()
    device = run("losetup", "-f", "--show", image)
    try:
        run("mount", "-t", "ext4", "-o", "commit=300", device, at)
        try:
            yield at
        finally:
            run("umount", at)
    finally:
        run("losetup", "-d", device)


def cut_power(work: Path, durability: str, seed: int) -> tuple[int, int]:
    """Freeze a writer, copy the disk as it is at that moment, and look there: (acknowledged, lost)."""
    image, copied = work / "disk.img", work / "after.img"
    with image.open("wb") as file:
        file.truncate(96 << 20)
    options = "lazy_itable_init=0,lazy_journal_init=0"
    run("mkfs.ext4", "-q", "-F", "-E", options, "-J", "size=8", image)
    with mounted(image, work / "before") as disk:
        run("sync", "-f", disk)
        writer = Writer(disk / "hot", durability, seed)
        assert writer.hear(60)
        until = time.monotonic() + random.Random(seed).uniform(0.1, 0.5)
        while time.monotonic() < until:
            writer.hear(0.02)
        writer.stop(signal.SIGSTOP)
        time.sleep(0.02)
        while writer.hear(0):
            pass
        shutil.copyfile(image, copied)
        acknowledged = writer.finish()
    with mounted(copied, work / "after") as disk:
        if durability == "power":
            check(disk / "hot", acknowledged)
            return len(acknowledged), 0
        with SessionManager(disk / "hot") as manager, manager.hot.reader() as connection:
            stored = {row[0] for row in connection.execute("SELECT content FROM event")}
        return len(acknowledged), sum(text not in stored for _, text in acknowledged)


@pytest.fixture
def loop_devices(tmp_path: Path) -> Path:
    if os.geteuid() or not all(map(shutil.which, ("losetup", "mkfs.ext4", "mount"))):
        pytest.skip("simulating a power cut needs root, losetup and mkfs.ext4")
    probe = tmp_path / "probe.img"
    with probe.open("wb") as file:
        file.truncate(8 << 20)
    try:
        run("mkfs.ext4", "-q", "-F", probe)
        with mounted(probe, tmp_path / "probe"):
            pass
    except RuntimeError as error:
        pytest.skip(f"no loop devices here: {error}")
    return tmp_path


@pytest.mark.slow
def test_10_power_cuts_lose_nothing_that_power_acknowledged(loop_devices: Path) -> None:
    total = 0
    for seed in range(10):
        work = loop_devices / f"cut{seed}"
        work.mkdir()
        acknowledged, lost = cut_power(work, "power", seed)
        assert lost == 0
        total += acknowledged
        shutil.rmtree(work)
    assert total > 200


@pytest.mark.slow
def test_power_cuts_really_cut(loop_devices: Path) -> None:
    for seed in range(1, 6):  # one right after a checkpoint loses nothing
        work = loop_devices / f"cut{seed}"
        work.mkdir()
        acknowledged, lost = cut_power(work, "process", seed)
        if lost > acknowledged // 4:
            return
    pytest.fail("the simulation keeps what was never synced: it proves nothing")
