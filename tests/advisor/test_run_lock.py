import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from advisor.run_lock import (
    FOREIGN_STALE_SECONDS,
    Heartbeat,
    RunBusy,
    RunLock,
    Writer,
    heartbeat_age,
    living_writer,
    read_heartbeat,
    read_writer,
)
from estimators.files import StorageFailed

HOLD = """
import sys, time
from pathlib import Path
from advisor.run_lock import RunLock
RunLock(Path(sys.argv[1])).acquire("probe")
print("held", flush=True)
time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_the_name_of_the_first_and_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        writer = living_writer(tmp_path)
        assert writer is not None
        assert writer.pid == process.pid
        with pytest.raises(RunBusy, match=rf'process {process.pid} on {socket.gethostname()} \("probe", since 20'):
            RunLock(tmp_path).acquire("run")
    finally:
        process.send_signal(signal.SIGKILL)
    # a killed child stays a zombie until it is waited for: already then it is dead
    for _ in range(200):
        if living_writer(tmp_path) is None:
            break
        time.sleep(0.02)
    assert living_writer(tmp_path) is None
    process.communicate()
    lock = RunLock(tmp_path)
    dead = lock.acquire("run")
    assert dead is not None
    assert dead.pid == process.pid
    now = read_writer(tmp_path)
    assert now is not None
    assert now.pid == os.getpid()
    lock.release()
    assert not (tmp_path / "lock").exists()


def test_a_released_lock_is_free_and_names_nobody(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    assert lock.acquire("run") is None
    with pytest.raises(RunBusy, match="already being written by this process"):
        lock.acquire("run")
    with pytest.raises(RunBusy, match=f"process {os.getpid()}"):
        RunLock(tmp_path).acquire("run")
    lock.release()
    lock.release()
    assert living_writer(tmp_path) is None
    again = RunLock(tmp_path)
    assert again.acquire("run") is None
    again.release()


def test_a_reused_process_id_is_told_apart_by_its_start(tmp_path: Path) -> None:
    me = Writer.here("run")
    (tmp_path / "lock").write_text(json.dumps(asdict(replace(me, ticks=me.ticks - 1))))
    assert living_writer(tmp_path) is None
    (tmp_path / "lock").write_text(json.dumps(asdict(me)))
    assert living_writer(tmp_path) == me


def test_a_writer_on_another_machine_lives_as_long_as_its_heartbeat(tmp_path: Path) -> None:
    far = replace(Writer.here("run"), host="elsewhere", pid=1)
    (tmp_path / "lock").write_text(json.dumps(asdict(far)))
    (tmp_path / "heartbeat").write_text("{}")
    with pytest.raises(RunBusy, match="process 1 on elsewhere"):
        RunLock(tmp_path).acquire("run")
    assert read_writer(tmp_path) == far
    old = time.time() - FOREIGN_STALE_SECONDS - 5
    os.utime(tmp_path / "heartbeat", (old, old))
    lock = RunLock(tmp_path)
    assert lock.acquire("run") == far
    lock.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_file_without_a_readable_name_is_taken_when_nobody_holds_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    lock = RunLock(tmp_path)
    assert lock.acquire("run") is None
    lock.release()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="lock.*cannot be written"):
        RunLock(tmp_path / "gone").acquire("run")


def test_the_heartbeat_goes_on_and_tells_the_stage(tmp_path: Path) -> None:
    assert heartbeat_age(tmp_path) == float("inf")
    assert read_heartbeat(tmp_path) == {}
    heart = Heartbeat(tmp_path, seconds=0.01)
    heart.start()
    heart.tell({"stage": "probe", "done": 3, "total": 9})
    for _ in range(500):
        if read_heartbeat(tmp_path).get("beat", 0) >= 3 and "stage" in read_heartbeat(tmp_path):
            break
        time.sleep(0.01)
    heart.stop()
    content = read_heartbeat(tmp_path)
    assert content["beat"] >= 3
    assert (content["pid"], content["stage"], content["done"]) == (os.getpid(), "probe", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat"]


def test_a_heartbeat_that_cannot_be_written_stops_no_work(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path / "gone", seconds=0.01)
    heart.start()
    heart.stop()
    assert heartbeat_age(tmp_path / "gone") == float("inf")
