"""Credentials in the data folder: the secrets of this Nest, and the access of operator commands to it."""

import base64
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from services.embedded.folder import replace_file

_OPERATOR_FILE = "operator.json"


@dataclass(frozen=True)
class GeneratedSecrets:
    """The secrets that an operator sets in a deployment; those for Stripe belong to the Stripe double."""

    sealing_key: str = field(repr=False)
    internal_key: str = field(repr=False)
    stripe_api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)


def generated_secrets(folder: Path) -> GeneratedSecrets:
    """Return the secrets of a data folder; generate them the first time."""
    file = folder / "secrets.json"
    if file.exists():
        return GeneratedSecrets(**json.loads(file.read_text()))
    generated = GeneratedSecrets(
        sealing_key=f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        internal_key=secrets.token_hex(24),
        stripe_api_key=f"sk_test_{secrets.token_hex(16)}",
        webhook_secret=f"whsec_{secrets.token_hex(24)}",
    )
    replace_file(file, json.dumps(asdict(generated), indent=2))
    return generated


@dataclass(frozen=True)
class OperatorCredentials:
    """Access of operator commands to a running Nest."""

    url: str
    internal_key: str = field(repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """The services' settings, with their secrets, for `nest doctor`."""


def write_operator_credentials(folder: Path, credentials: OperatorCredentials) -> None:
    """Store the credentials in a data folder; only its owner can read them."""
    replace_file(folder / _OPERATOR_FILE, json.dumps(asdict(credentials)))


def operator_credentials(folder: Path) -> OperatorCredentials | None:
    """Return the credentials in a data folder, if it has any."""
    file = folder / _OPERATOR_FILE
    return OperatorCredentials(**json.loads(file.read_text())) if file.exists() else None
