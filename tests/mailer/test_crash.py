"""A mailer killed after the mail server's 250 and before its own mark: never no mail, at most two copies, one mail."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from services.mailer.handlers import mails
from shared.envelope import encode
from shared.faultpoints import EXIT_CODE
from tests.desk import Desk
from tests.mailer.smtp_server import SmtpServer
from tests.mailer.test_handlers import deliveries, order

MAILS = 3
"""In each round, ordered side by side: the mailer dies over one of them, whatever the others are at."""
SCRIPT = """
import asyncio, os, sys
from functools import partial
from pathlib import Path
from shared import faultpoints
from services.mailer.app import opened
from services.mailer.handlers import HANDLERS
from services.mailer.settings import MailerSettings
from services.mailer.store import INDEXES
from tests.desk import Desk
from tests.mailer.conftest import USUAL
from tests.mailer.test_crash import MAILS
from tests.mailer.test_handlers import order

async def carry_out(mongo_url, database, port, number, body):
    settings = MailerSettings(**{**USUAL, "smtp_port": int(port)})
    async with Desk(
        mongo_url, database, service="mailer", handlers=HANDLERS, indexes=INDEXES,
        open=partial(opened, settings=settings),
    ) as desk:
        orders = (desk.perform(order(), id=f"{number:016x}{mail:016x}", body=body) for mail in range(MAILS))
        await asyncio.gather(*orders)

def in_a_process_of_its_own(crash, number):
    # Forked, so that a hundred rounds import everything once.
    child = os.fork()
    if child == 0:
        if crash:
            faultpoints._point, faultpoints._left = "M1", crash
        try:
            asyncio.run(carry_out(*sys.argv[1:4], number, Path(sys.argv[4]).read_bytes()))
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for number in range(int(sys.argv[5])):
    crashed, again = in_a_process_of_its_own(number % MAILS + 1, number), in_a_process_of_its_own(0, number)
    print("codes", crashed, again, flush=True)
"""


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
async def test_a_mailer_killed_before_its_mark_sends_each_mail_once_or_twice_and_it_is_the_same_mail(
    desk: Desk, server: SmtpServer, mongo_url: str, tmp_path: Path, rounds: int
) -> None:
    assert mails.fault_point.__module__ == "shared.faultpoints"
    script, body = tmp_path / "rounds.py", tmp_path / "body.json"
    script.write_text(SCRIPT)
    body.write_bytes(encode(order(), desk.sealer))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), mongo_url, desk.database.name, str(server.port), str(body), str(rounds)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
    )
    written, _ = await asyncio.wait_for(process.communicate(), 20 + 3 * rounds)
    assert process.returncode == 0
    codes = [line for line in written.splitlines() if line.startswith(b"codes ")]
    assert codes == [b"codes %d 0" % EXIT_CODE] * rounds, written.decode()
    copies = Counter(str(arrival.message["Message-ID"]) for arrival in server.arrivals)
    ordered = {f"<{number:016x}{mail:016x}@nest.example>" for number in range(rounds) for mail in range(MAILS)}
    assert set(copies) == ordered
    assert max(copies.values()) == 2
    rows = await deliveries(desk)
    assert Counter(row["state"] for row in rows) == {"handed_over": rounds * MAILS}
