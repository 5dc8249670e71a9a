"""`nest clients looks` and `nest mail`: the branding of a client's mails, and previews of mails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client, CommandError
from services.operator.output import (
    AsJson,
    Data,
    JsonErrors,
    Profile,
    Table,
    columns,
    command,
    example_text,
    one_line_errors,
    plain,
    print_json,
    request_body,
    selected_nest,
)

app = typer.Typer(no_args_is_help=True, help="Show and set the branding of a client's mails and texts.")
mail_app = typer.Typer(no_args_is_help=True, help="Show and preview mails.")
COLUMNS: Final = columns("name: FIELD, chosen, shown")
BRANDING_FIELDS: Final = ("product_name", "support_address", "accent_colour", "background_colour", "logo_url", "locale")
ClientId = Annotated[str, typer.Argument(help="ID of the client.")]


@command(app, "show", "nest clients looks show client_…")
def show_branding(nest: Client, client_id: ClientId) -> Table:
    """Show what was chosen for a client, and the branding that its mails have with the defaults."""
    return _branding_table(nest.call("get_client_looks", {"client_id": client_id}))


@command(app, "set", "nest clients looks set client_… --accent-colour '#0a7d4f' --locale de")
def set_branding(
    nest: Client,
    client_id: ClientId,
    *,
    product_name: Annotated[str | None, typer.Option(help="Name of the product in mails.")] = None,
    sender_name: Annotated[str | None, typer.Option(help="Name of the sender.")] = None,
    sender_address: Annotated[
        str | None, typer.Option(help="Address of the sender; your mail server must be allowed to send for it.")
    ] = None,
    support_address: Annotated[str | None, typer.Option(help="Address of the support.")] = None,
    accent_colour: Annotated[str | None, typer.Option(help="Colour of buttons: #rrggbb.")] = None,
    background_colour: Annotated[str | None, typer.Option(help="Colour of the background: #rrggbb.")] = None,
    logo_url: Annotated[str | None, typer.Option(help="URL of the logo, shown 32 pixels high.")] = None,
    locale: Annotated[str | None, typer.Option(help="Language for users whose language is unknown: de.")] = None,
) -> Table:
    """Set the branding of a client's mails and texts within a second; omitted options are unchanged."""
    changed = request_body(
        product_name=product_name,
        sender_name=sender_name,
        sender_address=sender_address,
        support_address=support_address,
        accent_colour=accent_colour,
        background_colour=background_colour,
        logo_url=logo_url,
        locale=locale,
    )
    chosen = nest.call("get_client_looks", {"client_id": client_id})["chosen"]
    return _branding_table(nest.call("set_client_looks", {"client_id": client_id, **chosen, **changed}))


@command(app, "reset", "nest clients looks reset client_…")
def reset_branding(nest: Client, client_id: ClientId) -> Table:
    """Reset the branding of a client's mails and texts to that of the settings."""
    return _branding_table(nest.call("set_client_looks", {"client_id": client_id}))


def _branding_table(response: dict[str, Any]) -> Table:
    chosen, shown = response["chosen"], response["shown"]
    rows = [{"name": name, "chosen": chosen.get(name), "shown": shown.get(name)} for name in {**shown, **chosen}]
    return Table(response, rows, COLUMNS)


@command(
    mail_app, "show", "nest mail show magic-link", "nest mail show receipt --client client_… --html-to receipt.html"
)
def show_mail(
    nest: Client,
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="Name of the mail or text: magic-link, receipt.")],
    *,
    client: Annotated[str | None, typer.Option(help="With the branding of the client with this ID.")] = None,
    locale: Annotated[str | None, typer.Option(help="Language: de, fr-CA.")] = None,
    html_to: Annotated[Path | None, typer.Option("--html-to", help="Write the HTML document to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a mail or text as the running mailer renders it, with sample values and its own templates."""
    mail = nest.call("preview_mail", request_body(template=template, client_id=client, locale=locale))
    if html_to is not None:
        html_to.write_text(mail["html"], "utf-8")
    if as_json:
        print_json(mail)
        return
    if mail["subject"]:
        typer.echo(f"From: {plain(mail['sender'])}\nSubject: {plain(mail['subject'])}\n")
    typer.echo(plain(mail["text"], lines=True))


@mail_app.command(epilog=example_text("nest mail preview", "nest mail preview --templates ours"))
def preview(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("mail-preview"),
    *,
    templates: Annotated[
        Path | None, typer.Option(envvar="NEST_MAIL_TEMPLATES", help="Folder with your own templates.")
    ] = None,
    client: Annotated[list[str] | None, typer.Option(help="Add the branding of this client; calls Nest.")] = None,
    data: Data = Path(".nest"),
    profile: Profile = None,
    _json: JsonErrors = False,
) -> None:
    """Write every mail and text in every language and several brandings, and a page that shows all of them.

    Needs no running Nest, except for --client. The exit code is 1 if a template is unusable.
    """
    # These imports would slow down `nest --help`.
    from services.mailer.rendering.preview import preview_brandings, render_all, write_preview  # noqa: PLC0415
    from services.mailer.rendering.samples import BRANDING  # noqa: PLC0415
    from services.mailer.rendering.template_loader import Templates, UnusableTemplate  # noqa: PLC0415

    with one_line_errors():
        brandings = preview_brandings(BRANDING)
        for client_id in client or []:
            response = selected_nest(context, data, profile).call("get_client_looks", {"client_id": client_id})
            brandings[_folder_name(client_id)] = _branding(response["shown"])
        try:
            mails = list(render_all(Templates.read(templates), brandings, "example.com"))
        except UnusableTemplate as unusable:
            raise CommandError(str(unusable)) from None
        page = write_preview(out, mails)
    typer.echo(f"{len(mails)} mails and texts are in {out}; open {page.resolve().as_uri()}")


def _folder_name(client_id: str) -> str:
    """Return a folder name for an ID, which may have any characters."""
    return "".join(character if character.isalnum() or character in "_-" else "-" for character in client_id)[:80]


def _branding(shown: dict[str, Any]) -> Any:
    from email.utils import parseaddr  # noqa: PLC0415 -- would slow down `nest --help`

    from services.mailer.branding.models import Branding  # noqa: PLC0415

    name, address = parseaddr(shown["sender"])
    fields = {field: shown[field] for field in BRANDING_FIELDS}
    return Branding(sender_name=name or None, sender_address=address, **fields)
