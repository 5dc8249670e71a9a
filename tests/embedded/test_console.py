import io

from services.embedded.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_step_and_text_are_lines() -> None:
    out = io.StringIO()
    console = Console(out)
    console.step("starting MongoDB")
    console.print("Nest is running")
    assert out.getvalue() == "  starting MongoDB\nNest is running\n"


def test_download_is_a_bar_on_a_terminal() -> None:
    out = Terminal()
    console = Console(out)
    console.download("Apache Kafka", 22 << 20, 44 << 20)
    console.step("starting MongoDB")
    console.download("Apache Kafka", 44 << 20, 44 << 20)
    console.step("starting Apache Kafka")
    lines = out.getvalue().rstrip("\n").split("\n")
    assert lines[0].lstrip("\r") == f"  Apache Kafka {'━' * 14}{'╌' * 14} 22 of 44 MB"
    assert lines[-2].endswith(f"{'━' * 28} 44 of 44 MB")
    assert lines[-1] == "  starting Apache Kafka"


def test_download_prints_nothing_without_a_terminal() -> None:
    out = io.StringIO()
    Console(out).download("Apache Kafka", 1, 1)
    assert out.getvalue() == ""
