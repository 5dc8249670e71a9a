"""What auth is ordered about the looks of a client: it knows which clients there are, mailer what they look like."""

from typing import Annotated

from pydantic import Field

from shared.messages.auth.errors import ClientNotFound
from shared.messages.mailer.branding import ClientLooks, ClientLooksView
from shared.messages.message import Command


class SetClientLooks(
    ClientLooks, Command, wire="auth.set-client-looks", reply=ClientLooksView, refuses=(ClientNotFound,)
):
    """Say anew how the mails and texts of a client appear: what is left out is as the settings say again."""

    client_id: Annotated[str, Field(min_length=1)]
