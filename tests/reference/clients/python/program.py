"""Register a client twice with the generated client. Mypy checks that all error codes are handled."""

import sys
from typing import assert_never

from nest_client.api.login import send_magic_link
from nest_client.api.operators import create_client
from nest_client.client import AuthenticatedClient
from nest_client.models.client_view import ClientView
from nest_client.models.create_client import CreateClient
from nest_client.models.create_client_explained_conflict_error import CreateClientExplainedConflictError
from nest_client.models.create_client_explained_conflict_error_code import CreateClientExplainedConflictErrorCode
from nest_client.models.send_magic_link_and_code import SendMagicLinkAndCode
from nest_client.models.send_magic_link_explained_not_found_error import SendMagicLinkExplainedNotFoundError
from nest_client.models.send_magic_link_explained_not_found_error_code import SendMagicLinkExplainedNotFoundErrorCode


def explain(error: CreateClientExplainedConflictError) -> str:
    """Put an error into words."""
    match error.code:
        case CreateClientExplainedConflictErrorCode.CLIENT_ALREADY_EXISTS:
            return f"exists already, request {error.meta.request_id}: {error.message}"
        case CreateClientExplainedConflictErrorCode.IDEMPOTENCY_KEY_REUSED:
            return "another body"
        case CreateClientExplainedConflictErrorCode.CLIENT_NOT_FOUND:  # type: ignore[attr-defined]  # not a code of this error
            return ""
    assert_never(error.code)


def main(base_url: str, key: str) -> None:
    """Print the version of the new client, the conflict, and the error for an unknown client, on a line each."""
    lines: list[str] = []
    body = CreateClient(id="client_python", name="Python", redirect_uris=["https://app.example/"])
    link = SendMagicLinkAndCode(
        client_id="client_unknown",
        redirect_uri="https://app.example/",
        state="state",
        code_challenge_method="S256",
        code_challenge="E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        identifier_type="email",
        identifier_value="ada@example.com",
    )
    with AuthenticatedClient(base_url=base_url, token=key, prefix="internal") as client:
        first = create_client.sync(client=client, body=body)
        if isinstance(first, ClientView):
            lines.append(str(first.version))
        second = create_client.sync(client=client, body=body)
        if isinstance(second, CreateClientExplainedConflictError):
            lines.append(explain(second))
        refused = send_magic_link.sync(client=client, body=link)
        if isinstance(refused, SendMagicLinkExplainedNotFoundError):
            match refused.code:
                case SendMagicLinkExplainedNotFoundErrorCode.CLIENT_NOT_FOUND:
                    lines.append("no such client")
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
