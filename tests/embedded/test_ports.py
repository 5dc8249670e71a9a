import socket
from pathlib import Path

from services.embedded import ports


def test_port_with_a_listener_is_not_free() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        assert not ports.is_free(server.getsockname()[1])
    assert ports.is_free(ports.any_free())


def test_stored_port_is_used_again(tmp_path: Path) -> None:
    file = tmp_path / "x.port"
    first = ports.stored(file)
    assert ports.stored(file) == first


def test_stored_port_that_is_in_use_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.port"
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        file.write_text(str(taken))
        other = ports.stored(file)
    assert other != taken
    assert int(file.read_text()) == other


def test_invalid_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.port"
    file.write_text("none")
    assert ports.stored(file) == int(file.read_text())
