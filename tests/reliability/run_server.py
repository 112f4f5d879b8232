"""Runs commands in processes forked from one that has everything imported, so that a kill costs no start-up time.

A script of its own (``python -m tests.reliability.run_server``): it must hold no thread when it forks.  It reads one
JSON order a line and answers with one JSON line:

    {"arguments": [...], "folder": "...", "kill_after": seconds | null, "kill_at_write": n | null, "signal": k | null,
     "kill_at_step": n | null, "snapshots": seconds | null}
    {"status": exit status or -signal, "seconds": wall time, "said": standard error, "writes": writes seen,
     "steps": training steps done}

``signal`` is sent instead of SIGKILL after ``kill_after``.  ``kill_at_write=n`` kills the process at its n-th change of
the file system (open for writing, rename, removal), i.e. at the moments where a half-written file could be left, and
``kill_at_step=n`` in its n-th training step.  ``snapshots`` is the pause between two snapshots.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"}


def main() -> None:
    """Serve orders until standard input ends."""
    import torch

    import advisor.cli  # noqa: F401 - imported for the processes to come
    import advisor.pipeline
    import advisor.validating  # noqa: F401
    import estimators.measuring  # noqa: F401
    from estimators.backbone_loading import BackboneSource, build_module, resolve

    torch.set_num_threads(1)
    source, _ = resolve(BackboneSource(name="test_resnet", in_chans=1, image_size=16, seed=0))
    build_module(source, pretrained=False)  # loads timm
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(obey(json.loads(line))) + "\n")
        sys.stdout.flush()


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a forked process and say how it ended."""
    folder = Path(order["folder"])
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        run(order, folder)
    waited = ended_within(child, order.get("kill_after"))
    signalled = time.monotonic()
    if not waited:
        os.kill(child, order.get("signal") or signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    writes, steps = folder / "writes.txt", folder / "steps.txt"
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        "seconds_after_signal": time.monotonic() - signalled,
        "said": (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace"),
        "writes": int(writes.read_text(encoding="utf-8")) if status == 0 and writes.exists() else 0,
        "steps": steps.stat().st_size,
    }


def ended_within(child: int, seconds: float | None) -> bool:
    """Whether a child ended within ``seconds``."""
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def run(order: dict[str, Any], folder: Path) -> None:
    """The forked process: one command of the command line, then out."""
    os.chdir(folder)
    for name, number in (("stdout.txt", 1), ("stderr.txt", 2)):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
    sys.stdin.close()
    count_steps(order.get("kill_at_step"))
    if order.get("snapshots") is not None:
        from estimators import snapshot_folder

        snapshot_folder.SECONDS = snapshot_folder.LONGEST = order["snapshots"]
    writes = count_writes(order.get("kill_at_write"))
    from advisor import cli

    code = 1
    try:
        code = cli.main(order["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        Path("writes.txt").write_text(str(len(writes)), encoding="utf-8")
        os._exit(code)


def count_steps(kill_at: int | None) -> None:
    """Leave a byte in ``steps.txt`` for every training step done; kill this process in the ``kill_at``-th."""
    from estimators.training_loop import TrainingLoop

    descriptor = os.open("steps.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    step, begun = TrainingLoop.step, 0

    def counted(self: TrainingLoop, k: int) -> None:
        nonlocal begun
        begun += 1
        if begun == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(descriptor, b".")
        step(self, k)

    TrainingLoop.step = counted  # type: ignore[method-assign]


def count_writes(kill_at: int | None) -> list[str]:
    """Watch changes of the file system, into the list returned; kill this process at the ``kill_at``-th."""
    seen: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in CHANGES:
            return
        seen.append(event)
        if len(seen) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return seen


class Server:
    """The client's side: start it, give orders, end it."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.reliability.run_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def order(
        self,
        folder: Path,
        *arguments: str,
        kill_after: float | None = None,
        kill_at_write: int | None = None,
        kill_at_step: int | None = None,
        snapshots: float | None = None,
        with_signal: int | None = None,
    ) -> dict[str, Any]:
        """Run ``merge-advisor`` with arguments in a folder; see the module's head for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {
            "arguments": list(arguments),
            "folder": str(folder),
            "kill_after": kill_after,
            "kill_at_write": kill_at_write,
            "kill_at_step": kill_at_step,
            "snapshots": snapshots,
            "signal": with_signal,
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the server died"
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


if __name__ == "__main__":
    main()
