"""A real server of the app, started as the command line starts it, and raw requests to it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path, run: Path | None = None, *, port: int | None = None, seconds: float = 120) -> Iterator[int]:
    """The port of a server whose working directory is ``folder``; only the entry's own settings are used."""
    port = port or free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(HOME / "app" / "main.py"), "--server.port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command + ([] if run is None else ["--", str(run)]), cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + seconds
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((folder / "server.log").read_text(encoding="utf-8"))
                time.sleep(0.1)
            yield port
        finally:
            server.terminate()
            server.wait(20)


def ask(port: int, text: str, body: bytes = b"", *, address: str = "127.0.0.1") -> str:
    """Send a raw request, get the start of the answer."""
    with socket.create_connection((address, port), 20) as line:
        line.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        line.settimeout(20)
        answer = b""
        with contextlib.suppress(TimeoutError):
            while len(answer) < 20_000:
                piece = line.recv(4096)
                answer += piece
                if not piece or b"\r\n\r\n" in answer:
                    break
    return answer.decode("utf-8", "replace")


def status(answer: str) -> int:
    """The status code of an answer."""
    return int(answer.split()[1])
