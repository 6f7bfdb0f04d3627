"""Transactions, durability, the gate, forks and damage: what the store promises below the sessions."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live_sessions import texts

from archiver import SessionManager
from archiver.errors import CorruptDataError, SettingsError, StorageError, StoreBusyError
from archiver.hot import HotStore, doorbell, durability
from archiver.hot import gate as gate_module
from archiver.hot.doorbell import Doorbell
from archiver.hot.gate import Gate, refuse_network_filesystem


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", busy_timeout_seconds=5) as made:
        yield made


def note(name: str) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO adopted(name, at_us) VALUES(?, 0)", (name,))

    return work


def notes(store: HotStore) -> list[str]:
    with store.reader() as connection:
        return [row[0] for row in connection.execute("SELECT name FROM adopted ORDER BY name")]


# ------------------------------------------------------------------ transactions


def test_a_failing_block_leaves_nothing(store: HotStore) -> None:
    with pytest.raises(RuntimeError, match="mine"), store.transaction() as connection:  # noqa: PT012
        note("a")(connection)
        raise RuntimeError("mine")

    def failing(connection: sqlite3.Connection) -> None:
        note("b")(connection)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        store.run(failing)
    store.run(note("c"))
    assert notes(store) == ["c"]


def test_in_a_group_commit_one_failure_undoes_only_itself(store: HotStore) -> None:
    def work(name: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            note(name)(connection)
            if name.endswith("7"):
                raise RuntimeError(name)

        store.run(job, durability="power")

    names = [f"n{i:02}" for i in range(40)]
    with ThreadPoolExecutor(16) as pool, store.transaction() as held:
        futures = [pool.submit(work, name) for name in names]
        time.sleep(0.2)  # all of them wait for this transaction, so that they are committed together
        note("first")(held)
        del held
    failed = [f.exception() for f in futures if f.exception() is not None]
    assert sorted(map(str, failed)) == ["n07", "n17", "n27", "n37"]
    assert notes(store) == sorted([n for n in names if not n.endswith("7")] + ["first"])


def test_a_caller_that_gave_up_is_not_committed_later(tmp_path: Path) -> None:
    with HotStore(tmp_path / "hot", busy_timeout_seconds=0.2) as store:
        with store.transaction() as connection:
            with ThreadPoolExecutor(1) as pool:
                error = pool.submit(store.run, note("late")).exception()
            note("held")(connection)
        assert isinstance(error, StoreBusyError)
        store.run(note("next"))
        assert notes(store) == ["held", "next"]


def test_a_reader_sees_one_snapshot_and_cannot_write(store: HotStore) -> None:
    with store.reader() as connection:
        assert connection.execute("SELECT count(*) FROM adopted").fetchone() == (0,)
        store.run(note("a"))
        assert connection.execute("SELECT count(*) FROM adopted").fetchone() == (0,)
    with pytest.raises(StorageError, match="readonly"), store.reader() as connection:
        connection.execute("DELETE FROM adopted")
    assert notes(store) == ["a"]


def test_a_store_has_at_most_16_descriptors_whatever_the_number_of_sessions(
    tmp_path: Path, stopped_holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    script = f"""
        import os, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from archiver import SessionManager
        def descriptors():
            return len(os.listdir("/proc/self/fd"))
        before = descriptors()
        with SessionManager({str(tmp_path / "s")!r}) as manager:
            def work(i):
                manager.create_session(f"s{{i}}", durability=("process", "interval", "power")[i % 3])
                manager.add_message(f"s{{i}}", "user", "x")
                manager.get_session(f"s{{i}}")
            with ThreadPoolExecutor(12) as pool:
                list(pool.map(work, range(600)))
            print(descriptors() - before, flush=True)
            input()  # by now another process holds the gate
            threading.Thread(target=work, args=[1000]).start()
            time.sleep(0.3)
            print(descriptors() - before, flush=True)
            os._exit(0)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(
        arguments, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        working = int(process.stdout.readline())
        stopped_holder(tmp_path / "s" / "hot.lock")
        process.stdin.write("\n")
        process.stdin.flush()
        waiting = int(process.stdout.readline())
    assert max(working, waiting) <= 16, (working, waiting)


def run_script(script: str) -> str:
    """Run a program of its own and return what it printed."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ------------------------------------------------------------------ durability


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Times at which fdatasync really ran."""
    seen: list[float] = []
    real = os.fdatasync

    def counted(fd: int) -> None:
        real(fd)
        seen.append(time.monotonic())

    monkeypatch.setattr(durability.os, "fdatasync", counted)
    return seen


def test_power_syncs_before_it_returns_interval_soon_after_process_never(tmp_path: Path, syncs: list[float]) -> None:
    with HotStore(tmp_path / "hot", durability="process") as store:
        syncs.clear()
        store.run(note("a"))
        time.sleep(0.1)
        assert syncs == []
        store.run(note("b"), durability="power")
        assert len(syncs) == 1
        store.run(note("c"), durability="interval")
        deadline = time.monotonic() + 5
        while len(syncs) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(syncs) == 2
        store.run(note("d"))
        store.flush()
        assert len(syncs) == 3


def test_callers_of_power_share_their_syncs_and_a_commit_is_never_acknowledged_before_one(
    store: HotStore, syncs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = durability.os.fdatasync

    def delayed(fd: int) -> None:
        time.sleep(0.02)
        slow(fd)

    monkeypatch.setattr(durability.os, "fdatasync", delayed)
    committed: dict[str, float] = {}

    def work(i: int) -> tuple[str, float]:
        def job(connection: sqlite3.Connection) -> None:
            note(f"n{i:03}")(connection)
            committed[f"n{i:03}"] = time.monotonic()

        store.run(job, durability="power")
        return f"n{i:03}", time.monotonic()

    syncs.clear()
    with ThreadPoolExecutor(16) as pool:
        returned = dict(pool.map(work, range(160)))
    assert len(syncs) < 120, "without sharing it is one for each of 160"
    for name, at in returned.items():
        assert any(committed[name] < synced <= at for synced in syncs)


def test_a_failed_fdatasync_is_final_until_the_store_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HotStore(tmp_path / "hot", durability="power")
    store.run(note("a"))

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(durability.os, "fdatasync", failing)
        with pytest.raises(StorageError, match="fdatasync"):
            store.run(note("b"))
    for level in ("process", "interval", "power"):
        with pytest.raises(StorageError, match="fdatasync"):
            store.run(note("c"), durability=level)  # type: ignore[arg-type]
    store.close()
    with HotStore(tmp_path / "hot", durability="power") as store:
        store.run(note("d"))
        assert "d" in notes(store)
        assert "c" not in notes(store)


def test_the_wal_is_kept_in_bounds(store: HotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.hot.database._WAL_LIMIT_BYTES", 1_000_000)
    monkeypatch.setattr("archiver.hot.database._WAL_CHECK_COMMITS", 8)
    wal = store.directory / "hot.db-wal"
    largest = 0
    for i in range(64):
        store.run(note(f"{i}" + "x" * 100_000), durability="process")
        largest = max(largest, wal.stat().st_size)
    assert largest > 1_000_000
    assert wal.stat().st_size < 2_500_000


GROWER = """
    import sys, time
    from archiver.hot import HotStore
    store = HotStore(sys.argv[1], durability="process")
    for i in range(300):
        store.run(lambda c, i=i: c.execute(
            "INSERT INTO adopted(name, at_us, error) VALUES(?, 0, ?)", (f"{i:03}", "x" * 3000)).rowcount)
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_wal_that_grows_is_given_room_ahead_which_a_restart_does_not_mind(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", textwrap.dedent(GROWER), str(tmp_path / "hot")]
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.kill()
    wal = (tmp_path / "hot" / "hot.db-wal").read_bytes()
    used = len(wal.rstrip(b"\0"))
    assert len(wal) - used > 256 * 1024
    with HotStore(tmp_path / "hot") as store:
        assert notes(store) == [f"{i:03}" for i in range(300)]


def test_a_disk_with_little_room_is_left_to_the_messages(store: HotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "_SHARE_OF_DISK", 1 << 40)
    for i in range(300):
        store.run(note(f"{i}" + "x" * 3000), durability="process")
    wal = (store.directory / "hot.db-wal").read_bytes()
    assert len(wal) > 1_000_000
    assert len(wal) - len(wal.rstrip(b"\0")) < 4096


# ------------------------------------------------------------------ bulk work beside handlers


def test_a_patient_process_lets_whoever_waits_in_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, waiting = Gate(tmp_path / "lock"), Doorbell(os.open(tmp_path / "lock", os.O_RDWR))
    passed, waited = [0], []
    monkeypatch.setattr(Doorbell, "wait", lambda bell, seconds: waited.append(passed[0]))
    running.acquire(1)
    waiting.announce()
    for passed[0] in range(3):
        running.release()
        running.acquire(1, patient=True)
    assert waited[0] == 0
    running.close()
    waiting.close()


def test_bulk_work_moves_its_pages_into_the_database_and_leaves_the_wal_short(store: HotStore) -> None:
    for i in range(64):
        with store.bulk_transaction() as connection:
            note(f"{i:02}" + "x" * 400_000)(connection)
    assert (store.directory / "hot.db-wal").stat().st_size < 20_000_000  # 64 × 400 kB would be 25 MB
    assert len(notes(store)) == 64


def test_the_wal_is_not_reset_while_a_snapshot_of_it_is_moved(store: HotStore) -> None:
    """SQLite before 3.51.3 loses pages if a commit resets the WAL during a checkpoint."""
    wal = store.directory / "hot.db-wal"
    generation = lambda: wal.read_bytes()[16:24]  # noqa: E731  the salts in its header
    database = store._database
    assert database is not None
    store.run(note("a"))
    with database._behind_gate(), database._without_checkpoint():
        note("b")(database._writer)
        snapshot = database._snapshot()
    assert snapshot is not None
    assert database._snapshot() is None, "one at a time: whoever comes second may find the WAL moved"
    before = generation()
    store.run(note("c"))
    with HotStore(store.directory) as other:
        for name in ("d", "e"):
            with other._database._behind_gate():  # type: ignore[union-attr]
                other._database._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # type: ignore[union-attr]
            other.run(note(name))
            assert generation() == before
        database._move_wal(snapshot)
        store.run(note("f"))
        assert generation() != before
    assert notes(store) == ["a", "b", "c", "d", "e", "f"]


def test_deleted_text_is_in_no_file_after_a_checkpoint(tmp_path: Path) -> None:
    with SessionManager(tmp_path / "s") as manager:
        manager.create_session("s")
        manager.add_message("s", "user", "a very private sentence")
        manager.delete_session("s", archive=False)
        manager.hot.checkpoint()
        manager.close()
    assert not [p for p in (tmp_path / "s").iterdir() if b"very private" in p.read_bytes()]


# ------------------------------------------------------------------ the gate


HOLDER = """
    import fcntl, os, sys, time
    fd = os.open(sys.argv[1], os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def stopped_holder(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """A process that holds the gate, as one stopped in a debugger would."""
    started: list[subprocess.Popen[str]] = []

    def start(lock: Path) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", textwrap.dedent(HOLDER), str(lock)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_caller_leaves_at_its_deadline_and_the_gate_is_not_kept_for_it(
    tmp_path: Path, stopped_holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    with HotStore(tmp_path / "hot", busy_timeout_seconds=0.3) as store:
        holder = stopped_holder(tmp_path / "hot" / "hot.lock")
        started = time.monotonic()
        for name in ("a", "b"):
            with pytest.raises(StoreBusyError, match="another process"):
                store.run(note(name))
        assert time.monotonic() - started < 5
        holder.kill()
        holder.wait()
        time.sleep(0.1)
        with HotStore(tmp_path / "hot", busy_timeout_seconds=2) as other:
            other.run(note("other"))
        store.run(note("c"))
        assert notes(store) == ["c", "other"]


def test_a_waiting_caller_gets_in_when_the_holder_dies(
    tmp_path: Path, stopped_holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    with HotStore(tmp_path / "hot", busy_timeout_seconds=20) as store:
        holder = stopped_holder(tmp_path / "hot" / "hot.lock")
        threading.Timer(0.2, holder.kill).start()
        store.run(note("a"))
        assert notes(store) == ["a"]


def test_a_gate_orders_two_holders_in_one_process(tmp_path: Path) -> None:
    first, second = Gate(tmp_path / "lock"), Gate(tmp_path / "lock")
    first.acquire(1)
    with pytest.raises(StoreBusyError):
        second.acquire(0.1)
    first.release()
    second.acquire(5)
    with pytest.raises(StoreBusyError):
        first.acquire(0.1)
    second.release()
    first.close()
    second.close()


RELEASER = """
    import sys, time
    from pathlib import Path
    from archiver.hot.gate import Gate
    gate = Gate(Path(sys.argv[1]))
    gate.acquire(1)
    print("held", flush=True)
    time.sleep(0.3)
    gate.release()
    time.sleep(60)
"""


def test_whoever_leaves_the_gate_wakes_one_that_waits_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_LOOK_AGAIN_SECONDS", 30)
    arguments = [sys.executable, "-c", textwrap.dedent(RELEASER), str(tmp_path / "lock")]
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        gate = Gate(tmp_path / "lock")
        started = time.monotonic()
        gate.acquire(60)
        assert time.monotonic() - started < 10
        other.kill()
    gate.release()
    gate.close()


def test_where_nobody_can_ring_the_gate_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "_SYSCALL_FUTEX", {})
    first, second = Gate(tmp_path / "lock"), Gate(tmp_path / "lock")
    first.acquire(1)
    threading.Timer(0.2, first.release).start()
    second.acquire(20)
    second.release()
    first.close()
    second.close()


def test_a_process_that_runs_lets_one_that_waits_in_after_a_few_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, waiting = Gate(tmp_path / "lock"), Doorbell(os.open(tmp_path / "lock", os.O_RDWR))
    passed, waited = [0], []
    monkeypatch.setattr(Doorbell, "wait", lambda bell, seconds: waited.append(passed[0]))
    running.acquire(1)
    waiting.announce()
    for passed[0] in range(20):
        running.release()
        running.acquire(1)
    assert waited == [gate_module._MOST_PASSES]
    running.release()
    running.acquire(1)
    waiting.announce()
    running.release()
    waiting.take_turn()
    for _ in range(20):
        running.acquire(1)
        running.release()
    assert len(waited) == 1, "nobody gives way to one that has had its turn"
    running.close()
    waiting.close()


# ------------------------------------------------------------------ forks


def test_a_forked_child_opens_its_own_store_and_leaves_the_parent_s_alone(store: HotStore) -> None:
    store.run(note("parent before"))
    child = os.fork()
    if child == 0:  # pragma: no cover  another process
        try:
            store.run(note("child"))
            store.close()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.run(note("parent after"))
    assert notes(store) == ["child", "parent after", "parent before"]


def test_a_forked_child_does_not_keep_the_gate_of_a_killed_parent_locked(tmp_path: Path) -> None:
    script = f"""
        import os, signal, time
        from archiver.hot import HotStore
        store = HotStore({str(tmp_path / "hot")!r})
        with store.transaction() as connection:
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", textwrap.dedent(script)]
    parent = subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.wait()
    try:
        with HotStore(tmp_path / "hot", busy_timeout_seconds=5) as store:
            store.run(note("after"))
            assert notes(store) == ["after"]
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


# ------------------------------------------------------------------ places and damage


@pytest.mark.parametrize(
    ("kind", "refused"), [("nfs4", True), ("fuse.sshfs", True), ("cifs", True), ("ext4", False), ("overlay", False)]
)
def test_network_file_systems_are_refused(tmp_path: Path, kind: str, refused: bool) -> None:
    mounts = tmp_path / "mounts"
    escaped = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/export {escaped} {kind} rw 0 0\n")
    if refused:
        with pytest.raises(SettingsError, match=kind):
            refuse_network_filesystem(tmp_path / "hot", mounts)
    else:
        refuse_network_filesystem(tmp_path / "hot", mounts)
    refuse_network_filesystem(Path("/elsewhere"), mounts)


def test_a_full_database_is_an_error_and_the_next_write_works(tmp_path: Path) -> None:
    with SessionManager(tmp_path / "s") as manager:
        session = manager.create_session("s")
        manager.add_message("s", "user", "before")
        writer = manager.hot._open_database()._writer
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count={pages + 2}").fetchall()
        session.add_message("user", "x" * 100_000)
        with pytest.raises(StorageError, match="full"):
            manager.save_session("s")
        with pytest.raises(StorageError, match="full"):
            manager.add_message("s", "user", "y" * 100_000)
        assert texts(manager.peek("s")) == ["before"]
        writer.execute("PRAGMA max_page_count=1000000").fetchall()
        manager.save_session("s")
        assert [len(t) for t in texts(manager.peek("s"))] == [6, 100_000]


def test_a_full_disk_is_an_error_and_damages_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with SessionManager(disk / "s") as manager:
            manager.create_session("s")
            acknowledged = 0
            with pytest.raises(StorageError):  # noqa: PT012  the disk fills somewhere in the loop
                for _ in range(2000):
                    manager.add_message("s", "user", "x" * 2000)
                    acknowledged += 1
            assert acknowledged > 20
            assert len(manager.messages("s")) == acknowledged
            (disk / "s" / "hot.lock").stat()
        with SessionManager(disk / "s") as manager:
            assert len(manager.messages("s")) == acknowledged
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_directory_is_a_clear_error() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: root's is closed to everybody else
        Path(name).chmod(0o755)
        directory = Path(name) / "readonly"
        closed = Path(name) / "closed"
        for path, mode in ((directory, 0o555), (closed, 0o700)):
            path.mkdir()
            path.chmod(mode)
        script = f"""
            import os
            from archiver.hot import HotStore
            from archiver.errors import StorageError
            if os.geteuid() == 0:
                os.setuid(65534)
            for path in ({str(directory)!r}, {str(directory / "new")!r}, {str(closed / "new")!r}):
                try:
                    HotStore(path)
                except StorageError as error:
                    print(error.operation)
        """
        assert run_script(script).split("\n")[:2] == ["open store", "open store"]


def test_a_damaged_page_is_a_clear_error_and_other_sessions_stay_readable(tmp_path: Path) -> None:
    with SessionManager(tmp_path / "s") as manager:
        for name in ("a", "b", "c"):
            manager.create_session(name)
            for i in range(30):
                manager.add_message(name, "user", f"{name}{i} " + "x" * 1000)
        manager.hot.checkpoint()
        with manager.hot.reader() as connection:
            (sid,) = connection.execute("SELECT sid FROM session WHERE session_id = 'b'").fetchone()
    path = tmp_path / "s" / "hot.db"
    data = bytearray(path.read_bytes())
    at = data.find(b"b15 ")
    page = at // 4096 * 4096
    data[page : page + 4096] = os.urandom(4096)
    path.write_bytes(data)
    with SessionManager(tmp_path / "s") as manager:
        assert sid == 2
        with pytest.raises(CorruptDataError, match="damaged"):
            manager.get_session("b")
        assert len(manager.messages("a")) == 30
        manager.add_message("c", "user", "still writable")
        assert texts(manager.get_session("c"))[-1] == "still writable"


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough" * 200, b"SQLite format 3\x00" + b"\x07" * 5000]
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hot.db").write_bytes(content)
    with pytest.raises(CorruptDataError):
        HotStore(tmp_path)
    assert (tmp_path / "hot.db").read_bytes() == content


def test_a_database_of_another_program_or_a_newer_version_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sqlite3.connect(foreign / "hot.db") as connection:
        connection.execute("CREATE TABLE theirs(x)")
    connection.close()
    with pytest.raises(CorruptDataError, match="another program"):
        HotStore(foreign)
    HotStore(tmp_path / "newer").close()
    with sqlite3.connect(tmp_path / "newer" / "hot.db") as connection:
        connection.execute("PRAGMA user_version=999")
    connection.close()
    with pytest.raises(CorruptDataError, match="999"):
        HotStore(tmp_path / "newer")


def test_a_wal_that_cannot_be_emptied_never_fails_the_write(
    store: HotStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("archiver.hot.database._WAL_LIMIT_BYTES", 1)
    monkeypatch.setattr("archiver.hot.database._WAL_CHECK_COMMITS", 1)
    with store.reader() as connection:
        connection.execute("SELECT count(*) FROM adopted").fetchone()
        store.run(note("a"))
        store.run(note("b"))
    assert "wal_not_shrunk" in caplog.messages
    assert notes(store) == ["a", "b"]


def test_an_interrupt_of_the_committing_thread_tells_the_others_to_try_again(store: HotStore) -> None:
    errors: dict[str, BaseException | None] = {}

    def interrupted(connection: sqlite3.Connection) -> None:
        note("interrupted")(connection)
        raise KeyboardInterrupt

    def call(name: str, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            store.run(work)
            errors[name] = None
        except BaseException as error:  # noqa: BLE001
            errors[name] = error

    threads = [threading.Thread(target=call, args=(f"n{i}", note(f"n{i}"))) for i in range(3)]
    threads.append(threading.Thread(target=call, args=("interrupted", interrupted)))
    with store.transaction():
        for thread in threads:
            thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    interrupts = [name for name, error in errors.items() if isinstance(error, KeyboardInterrupt)]
    assert len(interrupts) == 1  # the thread that was committing, whoever it was
    stored = notes(store)
    assert stored == sorted(name for name, error in errors.items() if error is None)
    store.run(note("later"))
    assert "later" in notes(store)
