"""Wrong internal keys and forged tokens leave a trace, back off, and lock nobody out; the audit names good keys."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, Final

from tests.stack import Stack, eventually

LIMIT: Final = 30
"""Default of NEST_FAILED_AUTHENTICATIONS_PER_MINUTE."""


CREDENTIALS: Final = {
    "internal key": ("internal", 403, "access_denied", "198.51.100"),
    "access token": ("bearer", 401, "unauthorized", "198.51.101"),
}
"""Scheme, own status and code, and the attacker's network, by what is guessed."""


async def test_guesses_leave_a_trace_and_back_off_while_good_credentials_pass(separate: Stack, email: str) -> None:
    nest, guess = separate, f"wrong.{secrets.token_hex(16)}.guess"
    tokens = await nest.log_in(email)
    body = {"user_id": tokens["user_id"]}
    for scheme, status, _, network in CREDENTIALS.values():
        refusals = [
            await nest.call("get_user", body, authorization=f"{scheme} {guess}", x_forwarded_for=f"{network}.{number}")
            for number in range(1, LIMIT + 11)
        ]
        assert {response.status_code for response in refusals[:LIMIT]} == {status}
        waits = [int(each.headers["retry-after"]) for each in refusals[LIMIT:] if each.status_code == 429]
        assert len(waits) >= 5
        assert all(1 <= wait <= 60 for wait in waits)

        # Behind the same address everybody with a good key or token passes, and other networks are not affected.
        for good in (f"bearer {tokens['access_token']}", nest.internal["authorization"]):
            response = await nest.call("get_user", body, authorization=good, x_forwarded_for=f"{network}.7")
            assert response.status_code == 200, response.text
        other = await nest.call("get_user", body, authorization=f"{scheme} {guess}", x_forwarded_for="198.51.102.7")
        assert other.status_code == status

    for credential, (_, _, code, network) in CREDENTIALS.items():
        action = f"authenticate_{credential.replace(' ', '_')}"

        async def audited(action: str = action, network: str = network) -> list[dict[str, Any]]:
            response = await nest.call("list_audit_entries", {"action": action}, **nest.internal)
            entries: list[dict[str, Any]] = response.json()["entries"]
            return [entry for entry in entries if (entry["client_ip"] or "").startswith(network)]

        entries = await eventually(audited, within=120, what=f"the audit entry of {credential}")
        assert {(entry["code"], entry["outcome"], entry["caller"], entry["key_name"]) for entry in entries} == {
            (code, "refused", "anonymous", None)
        }
        assert len(entries) <= 3
        assert guess not in json.dumps(entries)
    gateway = next(url for name, url in nest.health.items() if name.startswith("gateway"))
    metrics = (await nest.http.get(f"{gateway}/metrics")).text
    for credential in CREDENTIALS:
        counted = re.findall(
            rf'authentications_total{{answer="([a-z ]+)",credential="{credential}"}} ([0-9.]+)', metrics
        )
        assert {answer for answer, _ in counted} == {"refused", "backed off"}
        assert sum(float(count) for _, count in counted) >= LIMIT + 10
    assert guess not in metrics


async def test_audit_names_the_internal_key(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    await nest.call("get_user", {"user_id": tokens["user_id"]}, **nest.internal)

    async def audited() -> list[dict[str, Any]]:
        filters = {"user_id": tokens["user_id"], "action": "get_user"}
        response = await nest.call("list_audit_entries", filters, **nest.internal)
        entries: list[dict[str, Any]] = response.json()["entries"]
        return entries

    (entry,) = await eventually(audited, what="the audit entry")
    assert (entry["caller"], entry["key_name"], entry["count"]) == ("internal", "ops", 1)
    listed = await nest.command("audit", "list", "--user", tokens["user_id"], "--json")
    assert {each["key_name"] for each in json.loads(listed.out)["entries"]} == {None, "ops"}
