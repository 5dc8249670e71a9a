import socket
from pathlib import Path

from services.embedded import ports


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        assert not ports.is_free(server.getsockname()[1])
    assert ports.is_free(ports.any_free())


def test_a_remembered_port_is_the_same_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "x.port"
    first = ports.remembered(file)
    assert ports.remembered(file) == first


def test_a_remembered_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.port"
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        file.write_text(str(taken))
        other = ports.remembered(file)
    assert other != taken
    assert int(file.read_text()) == other


def test_a_damaged_note_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.port"
    file.write_text("none")
    assert ports.remembered(file) == int(file.read_text())
