"""A Kafka and a MongoDB with TLS, users and rights, as in production."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pymongo import AsyncMongoClient

from services.embedded import kafka, ports
from services.embedded.kafka import EmbeddedKafka, KafkaInstallation
from services.embedded.mongo import EmbeddedMongo
from services.embedded.mongo_probe import is_primary
from shared.bus.access import PRINCIPALS
from shared.bus.kafka_connection import KafkaConnection
from tests.certificates import Authority

ADMIN: Final = "admin"
"""User of the brokers themselves, who may do everything."""
_PROPERTIES: Final = """
listeners=SASL_SSL://127.0.0.1:{port},SSL://127.0.0.1:{tls_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{port},SSL://127.0.0.1:{tls_port}
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  username="admin" password="{password}" user_admin="{password}";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
  org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="admin";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
"""
# The controller's listener is without a login: only it has anonymous connections.


class SecuredKafka(EmbeddedKafka):
    """A Kafka with SASL_SSL, with SSL and client certificates on another port, and with an authorizer.

    Every principal of Nest has a SCRAM user with the password in ``passwords``. For SCRAM-SHA-256 its password has
    ``-new`` at the end.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, heap_mb=256)
        self._authority = authority
        self._server = authority.issue("kafka")
        self._tls_port = ports.any_free()
        self.passwords = {name: secrets.token_hex(16) for name in (*PRINCIPALS, ADMIN)}

    async def launch(self, installation: KafkaInstallation, options: tuple[str, ...]) -> None:
        """Start the JVM with these options, and wait until Kafka accepts a login."""
        self._reserve_port()
        secured = _PROPERTIES.format(
            port=self._port,
            tls_port=self._tls_port,
            controller=ports.any_free(),
            password=self.passwords[ADMIN],
            keystore=self._server.both,
            truststore=self._authority.ca_file,
        )
        quorum = secured.partition("CONTROLLER://")[2].partition("\n")[0]
        replaced = ("listeners", "advertised.listeners", "listener.security.protocol.map", "controller.quorum.voters")
        plain = kafka.properties(0, self._data).splitlines()
        lines = [line for line in plain if line.partition("=")[0] not in replaced]
        file = self._folder / "kafka.properties"
        file.write_text("\n".join([*lines, f"controller.quorum.voters=1@{quorum}", secured]))
        await self._format(installation, file)
        command = installation.command("kafka.Kafka", file, heap_mb=self._heap_mb, options=options)
        await self._run(command, lambda: self._until(self._accepts_logins))

    async def _format(self, installation: KafkaInstallation, file: Path) -> None:
        if (self._data / "meta.properties").exists():
            return
        users = [
            word
            for name in PRINCIPALS
            for mechanism, suffix in (("SCRAM-SHA-512", ""), ("SCRAM-SHA-256", "-new"))
            for word in (
                "--add-scram",
                f"{mechanism}=[name={name},password={self.passwords[name]}{suffix},iterations=4096]",
            )
        ]
        cluster = base64.urlsafe_b64encode(bytes(range(16))).decode().rstrip("=")
        tool = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c", file, *users)
        process = await asyncio.create_subprocess_exec(
            *installation.command(*tool, heap_mb=64),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()

    async def _accepts_logins(self) -> bool:
        try:
            await self.connection(ADMIN).check()
        except Exception:  # noqa: BLE001 -- whatever the state of the start
            return False
        return True

    def connection(self, user: str, /, **changed: Any) -> KafkaConnection:
        """Return a connection that logs in as this user, with some attributes changed."""
        attributes = {
            "protocol": "SASL_SSL",
            "mechanism": "PLAIN" if user == ADMIN else "SCRAM-SHA-512",
            "user": user,
            "password": SecretStr(self.passwords.get(user, "")),
            "ca_file": self._authority.ca_file,
        }
        return KafkaConnection(self.bootstrap, **{**attributes, **changed})

    def certificate_connection(self, name: str | None, authority: Authority | None = None) -> KafkaConnection:
        """Return a connection to the port that requires a client certificate, with one of this name or none."""
        issued = None if name is None else (authority or self._authority).issue(name)
        return KafkaConnection(
            f"127.0.0.1:{self._tls_port}",
            "SSL",
            ca_file=self._authority.ca_file,
            certificate_file=None if issued is None else issued.certificate,
            key_file=None if issued is None else issued.key,
        )

    def settings(self) -> dict[str, str]:
        """Return the variables with which every process logs in as a user of its own."""
        return {
            "NEST_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "NEST_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "NEST_KAFKA_CA_FILE": str(self._authority.ca_file),
            **{f"NEST_{name.upper()}_KAFKA_USER": name for name in PRINCIPALS},
            **{f"NEST_{name.upper()}_KAFKA_PASSWORD": self.passwords[name] for name in PRINCIPALS},
        }


def unsecured_token(subject: str) -> str:
    """Return a token without a signature (RFC 7519, section 6), which Kafka's validator for tests accepts."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + 3600})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{encoded[0]}.{encoded[1]}."


class SecuredMongo(EmbeddedMongo):
    """A MongoDB replica set with TLS and a user for each database of the services."""

    def __init__(self, folder: Path, authority: Authority, database_prefix: str) -> None:
        super().__init__(folder)
        self._authority = authority
        self._server = authority.issue("mongo")
        self._database_prefix = database_prefix
        self.passwords = {name: secrets.token_hex(16) for name in ("auth", "billing", "mailer", "news", ADMIN)}

    def _command(self, mongod: Path) -> list[str | Path]:
        key_file = self._folder / "mongo.key"
        key_file.write_text(base64.b64encode(secrets.token_bytes(64)).decode())
        key_file.chmod(0o400)
        return [
            *super()._command(mongod),
            *("--keyFile", key_file, "--tlsMode", "requireTLS"),
            *("--tlsCertificateKeyFile", self._server.both, "--tlsCAFile", self._authority.ca_file),
            "--tlsAllowConnectionsWithoutCertificates",
        ]

    def options(self, **more: str) -> str:
        """Return the options of a URL, with further or other ones."""
        options = {"replicaSet": "rs0", "tls": "true", "tlsCAFile": str(self._authority.ca_file), **more}
        return "&".join(f"{name}={value}" for name, value in options.items() if value)

    def url_of(self, service: str, **more: str) -> str:
        """Return the URL with which a service, or the admin, logs in."""
        return f"mongodb://{service}:{self.passwords[service]}@127.0.0.1:{self._port}/?{self.options(**more)}"

    async def _until_primary(self) -> None:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            "127.0.0.1",
            self._port,
            directConnection=True,
            serverSelectionTimeoutMS=500,
            tls=True,
            tlsCAFile=str(self._authority.ca_file),
        )
        async with client:
            # Without users, a connection from this machine may configure the replica set and create the first user.
            await self._until(lambda: is_primary(client, self._port))
            await client.admin.command("createUser", ADMIN, pwd=self.passwords[ADMIN], roles=["root"])
        admin: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.url_of(ADMIN))
        async with admin:
            for name, password in self.passwords.items():
                if name != ADMIN:
                    role = {"role": "readWrite", "db": self._database_prefix + name}
                    await admin.admin.command("createUser", name, pwd=password, roles=[role])
