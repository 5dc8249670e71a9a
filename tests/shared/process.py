"""``python -m tests.shared.process ledger``: one of the ledger's services in a process of its own."""

import sys

from shared.service import Service, run
from shared.settings import ServiceSettings, load
from tests.shared.bus_harness import HANDLERS
from tests.shared.sample_services import HEARS, INDEXES, opening


def main() -> int:
    """Run the service that the command line names until it is told to stop."""
    name = sys.argv[1]
    return run(
        name,
        lambda: Service(
            load(ServiceSettings),
            name=name,
            handlers=HANDLERS[name],
            topics=HEARS[name],
            indexes=INDEXES,
            open_context=opening([]),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
