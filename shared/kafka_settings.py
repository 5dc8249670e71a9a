"""Settings of the connection to Kafka. Combinations without a meaning are refused and name the variable."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import Field, SecretStr, ValidationInfo, field_validator

from shared.bus.kafka_connection import KafkaConnection, TokenFile, describe
from shared.variables import PRODUCTION, VariableSettings

_PROTOCOL: Final = "NEST_KAFKA_SECURITY_PROTOCOL"
_CONFIRM: Final = "to confirm it, set NEST_KAFKA_INSECURE_IN_PRODUCTION"


class EnvironmentSettings(VariableSettings):
    """Settings of the kind of deployment."""

    environment: str = Field(default=PRODUCTION, pattern=r"^[a-z][a-z0-9]*$", examples=["staging"])
    """``production``, or a name such as ``dev``, which becomes the prefix of every ID."""
    kafka_insecure_in_production: bool = False
    """Confirms connections to Kafka without encryption or without authentication in production."""

    @property
    def production(self) -> bool:
        """True if this is the production environment."""
        return self.environment == PRODUCTION


class KafkaSettings(VariableSettings):
    """Settings of the connection to Kafka, for every process and for the commands of ``nest``."""

    kafka_bootstrap: str = Field(min_length=3, examples=["kafka:9092"])
    """Kafka brokers, ``host:port`` separated by commas."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", validate_default=True
    )
    """Encryption (SSL) and login (SASL). Production accepts SASL_SSL, and SSL with a client certificate
    (docs/operations.md#access-to-kafka)."""
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"] | None = Field(
        default=None, validate_default=True
    )
    """How to log in; required with SASL."""
    kafka_user: str | None = Field(default=None, max_length=256, validate_default=True)
    """User name of SCRAM and PLAIN."""
    kafka_password: SecretStr | None = Field(default=None, max_length=1024, validate_default=True)
    """Password of SCRAM and PLAIN."""
    kafka_token_file: Path | None = Field(default=None, validate_default=True)
    """File with the token of OAUTHBEARER, read for every connection."""
    kafka_ca_file: Path | None = None
    """PEM file of the certificate authorities of the brokers' certificates; those of the system by default."""
    kafka_certificate_file: Path | None = Field(default=None, validate_default=True)
    """PEM file of the client certificate and its chain."""
    kafka_key_password: SecretStr | None = Field(default=None, max_length=1024)
    """Password of an encrypted key."""
    kafka_key_file: Path | None = Field(default=None, validate_default=True)
    """PEM file of the client certificate's key; in the file of the certificate by default."""

    @cached_property
    def kafka(self) -> KafkaConnection:
        """The connection to Kafka."""
        return KafkaConnection(
            self.kafka_bootstrap,
            self.kafka_security_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_user,
            self.kafka_password,
            self.kafka_token_file,
            self.kafka_ca_file,
            self.kafka_certificate_file,
            self.kafka_key_file,
            self.kafka_key_password,
        )

    @field_validator(
        "kafka_sasl_mechanism",
        "kafka_user",
        "kafka_password",
        "kafka_token_file",
        "kafka_ca_file",
        "kafka_certificate_file",
        "kafka_key_file",
        "kafka_key_password",
        mode="before",
    )
    @classmethod
    def _kafka_unset_if_empty(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("kafka_security_protocol")
    @classmethod
    def _kafka_encrypted_in_production(cls, value: str, info: ValidationInfo) -> str:
        if not value.endswith("SSL") and _unconfirmed(info):
            login = "" if value.startswith("SASL") else " and without authentication"
            raise ValueError(f"{value} is without encryption{login}: set SASL_SSL, or, {_CONFIRM}")
        return value

    @field_validator("kafka_sasl_mechanism")
    @classmethod
    def _kafka_with_sasl_only(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (protocol := info.data.get("kafka_security_protocol")) is None:
            return value
        if protocol.startswith("SASL") and value is None:
            raise ValueError(f"is not set, and {_PROTOCOL} is {protocol}")
        if not protocol.startswith("SASL") and value is not None:
            raise ValueError(f"needs {_PROTOCOL} SASL_SSL or SASL_PLAINTEXT, and it is {protocol}")
        return value

    @field_validator("kafka_user", "kafka_password", "kafka_token_file")
    @classmethod
    def _kafka_as_the_mechanism_needs(cls, value: Any, info: ValidationInfo) -> Any:
        if "kafka_sasl_mechanism" not in info.data:
            return value
        mechanism, token = info.data["kafka_sasl_mechanism"], info.field_name == "kafka_token_file"
        needed = mechanism is not None and (mechanism == "OAUTHBEARER") == token
        if needed and value is None:
            raise ValueError(f"is not set, and NEST_KAFKA_SASL_MECHANISM is {mechanism}")
        if not needed and value is not None:
            raise ValueError(f"has no effect: NEST_KAFKA_SASL_MECHANISM is {mechanism or 'not set'}")
        if token and value is not None:
            try:
                TokenFile(value).read()
            except (OSError, ValueError) as failure:
                raise ValueError(f"{value}: {describe(failure)}") from None
        return value

    @field_validator("kafka_ca_file", "kafka_certificate_file", "kafka_key_file")
    @classmethod
    def _kafka_with_tls_only(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_security_protocol")
        if value is not None and protocol is not None and not protocol.endswith("SSL"):
            raise ValueError(f"needs {_PROTOCOL} SASL_SSL or SSL, and it is {protocol}")
        return value

    @field_validator("kafka_ca_file", "kafka_certificate_file")
    @classmethod
    def _kafka_of_certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            _certificates(value)
        return value

    @field_validator("kafka_certificate_file")
    @classmethod
    def _kafka_required_without_login(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("kafka_security_protocol") == "SSL" and _unconfirmed(info):
            raise ValueError(f"is not set, so SSL is without authentication: set it, or SASL_SSL, or, {_CONFIRM}")
        return value

    @field_validator("kafka_key_password", "kafka_key_file")
    @classmethod
    def _kafka_with_certificate_only(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("kafka_certificate_file", value) is None:
            raise ValueError("needs NEST_KAFKA_CERTIFICATE_FILE, which is not set")
        return value

    @field_validator("kafka_key_file")
    @classmethod
    def _kafka_of_the_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate, secret = info.data.get("kafka_certificate_file"), info.data.get("kafka_key_password")
        if certificate is None or "kafka_key_password" not in info.data:
            return value
        where = "" if value else "is not set, and "
        name = "the file" if value else "NEST_KAFKA_CERTIFICATE_FILE"
        try:
            key = load_pem_private_key(
                _read(value or certificate), None if secret is None else secret.get_secret_value().encode()
            )
        except TypeError:
            state = "encrypted, and NEST_KAFKA_KEY_PASSWORD is not set"
            state = state if secret is None else "not encrypted, and NEST_KAFKA_KEY_PASSWORD is set"
            raise ValueError(f"{where}the key in {name} is {state}") from None
        except UnsupportedAlgorithm:
            raise ValueError(f"{where}{name} contains a key of an unknown kind") from None
        except ValueError as failure:
            if value is not None and str(failure).startswith(str(value)):
                raise
            opened = "no private key" if secret is None else "no private key that NEST_KAFKA_KEY_PASSWORD opens"
            raise ValueError(f"{where}{name} contains {opened}") from None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != _certificates(certificate)[0].public_key().public_bytes(*form):
            raise ValueError(f"{where}{name} has the key of another certificate than NEST_KAFKA_CERTIFICATE_FILE")
        return value


def _unconfirmed(info: ValidationInfo) -> bool:
    """Whether this is production, and an insecure connection is not confirmed."""
    return bool(info.data.get("environment") == PRODUCTION) and not info.data.get("kafka_insecure_in_production")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise ValueError(f"{path}: {describe(failure)}") from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as failure:
        text = str(failure)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: contains no PEM certificate") from None
