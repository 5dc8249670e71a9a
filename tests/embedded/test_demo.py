from pathlib import Path

from services.embedded.demo import made_for


def test_a_folders_demo_client_keeps_the_address_of_its_first_start(tmp_path: Path) -> None:
    assert made_for(tmp_path, "http://127.0.0.1:8080") == "http://127.0.0.1:8080"
    assert made_for(tmp_path, "http://127.0.0.1:8081") == "http://127.0.0.1:8080"
