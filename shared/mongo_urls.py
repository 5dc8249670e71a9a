"""Connection strings of MongoDB: checks of credentials, TLS files and options, without connecting."""

from __future__ import annotations

import re
import ssl
import warnings
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from pydantic import SecretStr
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

_FIXED_OPTIONS: Final = {
    **dict.fromkeys(("w", "readConcernLevel"), "majority"),
    **dict.fromkeys(("journal", "j", "retryWrites", "retryReads"), "true"),
    "readPreference": "primary",
    **dict.fromkeys(("wTimeoutMS", "wtimeout", "fsync", "readPreferenceTags", "maxStalenessSeconds"), None),
}
"""Options of a connection string with their only permitted value, or None for those that are never permitted.

https://www.mongodb.com/docs/manual/reference/connection-string-options/"""

_WITHOUT_PASSWORD: Final = frozenset({"MONGODB-X509", "MONGODB-OIDC", "MONGODB-AWS", "GSSAPI"})
"""Mechanisms whose credential is a client certificate, a token, the machine's identity or a Kerberos ticket.

https://www.mongodb.com/docs/manual/core/authentication/"""


class InvalidMongoUrl(ValueError):
    """A connection string cannot be used. The text contains no part of it."""


class OptionNotPermitted(InvalidMongoUrl):
    """A connection string weakens durable writes or reads from the primary.

    The text names the option and contains no other part of the URL.
    """


def check_url(url: SecretStr, *, credentials_required: bool = False) -> None:
    """Check a connection string without connecting; the host of ``mongodb+srv://`` is not looked up.

    Args:
        url: the connection string.
        credentials_required: whether it must name a user with a password, or a mechanism that needs no password, such
            as X.509 client certificates.

    Raises:
        OptionNotPermitted: an option weakens the guarantees.
        InvalidMongoUrl: it is not a valid connection string, or has no credentials.
    """
    check_options(url.get_secret_value())
    parsed, reason = parsed_url(url)
    if parsed is None:
        # Raised here, since the driver's text and the variables of its frames contain the password.
        raise InvalidMongoUrl(reason)
    user, password, mechanism = parsed["username"], parsed["password"], parsed["options"].get("authMechanism")
    if credentials_required and mechanism not in _WITHOUT_PASSWORD and not (user and password):
        raise InvalidMongoUrl(
            "has no credentials, which production requires: mongodb://<user>:<password>@…, or a client certificate"
            " with authMechanism=MONGODB-X509"
        )


def parsed_url(url: SecretStr) -> tuple[dict[str, Any] | None, str]:
    """Parse a connection string; if it is invalid, return the reason, without any part of it."""
    # The driver's parser looks the host of mongodb+srv:// up, so it gets the same text as mongodb://.
    text = re.sub(r"^mongodb\+srv://", "mongodb://", url.get_secret_value())
    try:
        with warnings.catch_warnings():
            # Unknown options are reported by the client.
            warnings.simplefilter("ignore")
            parsed = parse_uri(text, warn=True)
            wrong = _wrong_tls_file(parsed["options"])
            return (None if wrong else parsed), wrong
    except OSError as unreadable:
        given = [option.partition("=") for option in re.split("[?&;]", text)[1:]]
        named = [name.strip() for name, _, value in given if unquote(value) == unreadable.filename]
        option = named[0] if named else "a TLS option"
        return None, f"{option} names a file that cannot be read ({unreadable.strerror})"
    except (ValueError, PyMongoError):
        return None, "is not a connection string mongodb://…; percent-encode special characters of user and password"


def _wrong_tls_file(options: Mapping[str, Any]) -> str:
    """Return what is wrong with the TLS files of a connection string; empty if they can be used."""
    # Without the system's certificates, which take 20 ms to load.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option in ("tlsCAFile", "tlsCRLFile"):
        if (file := options.get(option, options.get(option.lower()))) is not None:
            try:
                context.load_verify_locations(file)
            except OSError:
                return f"{option} names a file without PEM certificates"
    if (file := options.get("tlsCertificateKeyFile")) is not None:
        password = options.get("tlsCertificateKeyFilePassword") or ""
        try:
            # With a function, because without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(file, password=lambda: password)
        except OSError:
            return "tlsCertificateKeyFile names a file without a PEM certificate and its key, or with another password"
    return ""


def check_options(url: str) -> None:
    """Check that a connection string does not weaken the guarantees: durable writes, and reads from the primary.

    Raises:
        OptionNotPermitted: it has such an option.
    """
    names = {name.lower(): name for name in _FIXED_OPTIONS}
    for option in re.split("[?&;]", url)[1:]:
        key, _, given = option.partition("=")
        # The driver ignores case and white space too.
        name = names.get(key.strip().lower())
        if name is None:
            continue
        value = _FIXED_OPTIONS[name]
        if value is None:
            raise OptionNotPermitted(f"remove the option {name}, which Nest does not permit")
        if unquote_plus(given).strip() != value:
            raise OptionNotPermitted(f"remove the option {name}, or set it to {value}: Nest permits no other value")
