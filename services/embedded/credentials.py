"""Which secrets does this machine's Nest use? Made once, kept in the data folder, readable by its owner alone."""

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class GeneratedSecrets:
    """What a deployment would get from its operator."""

    sealing_key: str
    """`id:base64 of 32 bytes`, as NEST_SEALING_KEYS wants it."""
    internal_key: str
    """What `authorization: internal <key>` must say."""
    stripe_api_key: str
    """What the Stripe double takes; begins with `sk_test_`."""
    webhook_secret: str
    """What the Stripe double signs with; begins with `whsec_`."""


def generated_secrets(folder: Path) -> GeneratedSecrets:
    """The secrets of this data folder; the first call makes them."""
    file = folder / "secrets.json"
    if file.exists():
        return GeneratedSecrets(**json.loads(file.read_text()))
    made = GeneratedSecrets(
        sealing_key=f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        internal_key=secrets.token_hex(24),
        stripe_api_key=f"sk_test_{secrets.token_hex(16)}",
        webhook_secret=f"whsec_{secrets.token_hex(24)}",
    )
    half = folder / "secrets.new"
    # The mode from the start on: a file made first and closed to others after can be opened between.
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(asdict(made), out, indent=2)
    half.replace(file)
    return made


_NOTE = "operator.json"


@dataclass(frozen=True)
class OperatorCredentials:
    """Where a Nest's API is, and what opens it."""

    url: str
    internal_key: str
    environment: dict[str, str] = field(default_factory=dict)
    """What its services are told, secrets too: for whoever looks at what it runs on."""


def write_operator_credentials(folder: Path, found: OperatorCredentials) -> None:
    """Leaves the note, readable by its owner alone."""
    half = folder / f"{_NOTE}.new"
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(asdict(found), out)
    half.replace(folder / _NOTE)


def operator_credentials(folder: Path) -> OperatorCredentials | None:
    """What the note of this folder says; None where there is none."""
    note = folder / _NOTE
    return OperatorCredentials(**json.loads(note.read_text())) if note.exists() else None
