"""`nest mail`: what do mails look like?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from services.operator.client import Client
from services.operator.errors import CannotDo
from services.operator.options import Data, said_in_words

app = typer.Typer(no_args_is_help=True, help="See what mails look like.")


@app.callback()
def mail() -> None:
    """Keeps the one verb's name: with a single command typer would leave it out."""


@app.command(epilog="Examples:  [bold]nest mail preview[/bold]   ·   [bold]nest mail preview --templates ours[/bold]")
def preview(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("mail-preview"),
    *,
    templates: Annotated[
        Path | None, typer.Option(envvar="NEST_MAIL_TEMPLATES", help="A folder of templates of your own.")
    ] = None,
    client: Annotated[list[str] | None, typer.Option(help="Show the looks of this client too; asks Nest.")] = None,
    data: Data = Path(".nest"),
) -> None:
    """Write every mail and text, in every language and in several looks, and a page to look at all of them.

    Needs no running Nest but for --client. Exit code 1 when a template can't be used.
    """
    # Here, so that `nest --help` needs not wait for them.
    from services.mailer.rendering.preview import preview_brandings, render_all, write_preview  # noqa: PLC0415
    from services.mailer.rendering.samples import BRANDING  # noqa: PLC0415
    from services.mailer.rendering.template_loader import Templates, UnusableTemplate  # noqa: PLC0415

    with said_in_words():
        brandings = preview_brandings(BRANDING)
        for client_id in client or []:
            brandings[_folder(client_id)] = _branding(
                Client.of(data).call("get_client_looks", {"client_id": client_id})
            )
        try:
            shown = list(render_all(Templates.read(templates), brandings, "example.com"))
        except UnusableTemplate as unusable:
            raise CannotDo(str(unusable)) from None
        page = write_preview(out, shown)
    typer.echo(f"{len(shown)} mails and texts are in {out}; look at {page.resolve().as_uri()}")


def _folder(client_id: str) -> str:
    """The id as a folder's name: ids may hold anything."""
    return "".join(character if character.isalnum() or character in "_-" else "-" for character in client_id)[:80]


def _branding(answer: dict[str, Any]) -> Any:
    from email.utils import parseaddr  # noqa: PLC0415

    from services.mailer.branding.models import Branding  # noqa: PLC0415

    shown = answer["shown"]
    name, address = parseaddr(shown["sender"])
    return Branding(
        sender_name=name or None,
        sender_address=address,
        **{
            field: shown[field]
            for field in (
                "product_name",
                "support_address",
                "accent_colour",
                "background_colour",
                "logo_url",
                "locale",
            )
        },
    )
