"""One uninterrupted run of the tiny project, and the server that runs commands, for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.reliability.run_server import Server
from tests.reliability.tiny_project import write_project
from tests.reliability.whole_path import WholePath, command, results


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholePath]:
    folder = tmp_path_factory.mktemp("reliability")
    write_project(folder)
    server = Server()
    try:
        answer = command(server, folder, "whole")
        assert answer["status"] == 0, answer["said"]
        yield WholePath(server, folder, answer["seconds"], answer["writes"], answer["steps"], results(folder / "whole"))
    finally:
        server.close()
