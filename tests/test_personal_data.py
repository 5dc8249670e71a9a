"""Erasure covers every collection: each is classified, documented and erased as classified."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from services.auth.app import INDEXES as AUTH
from services.auth.personal_data.store import PersonalData as AuthPersonalData
from services.billing.app import INDEXES as BILLING
from services.billing.personal_data.store import PersonalData as BillingPersonalData
from services.mailer.app import INDEXES as MAILER
from services.mailer.personal_data.store import PersonalData as MailerPersonalData
from services.news.app import INDEXES as NEWS
from services.news.store import personal_data as news_personal_data
from shared.bus.inbox import Inbox
from shared.database_version import COLLECTION as SCHEMA
from shared.mongo import Database, connect, database
from shared.personal_data.subjects import PersonalDataCollection
from shared.sealing import Sealer
from tests.personal_data import COLLECTIONS, REMOVED_BY_HANDLERS, Effect

ROOT: Final = Path(__file__).parent.parent
INDEXES: Final = {"auth": AUTH, "billing": BILLING, "mailer": MAILER, "news": NEWS}


def named_in(source: str) -> set[str]:
    """The collections that a source names: ``COLLECTION = "…"``, ``COLLECTION: Final = "…"``, ``database["…"]``."""
    return set(_named(ast.parse(source)))


def _named(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="COLLECTION")], value=ast.Constant(value=str(name))):
                yield name
            case ast.AnnAssign(target=ast.Name(id="COLLECTION"), value=ast.Constant(value=str(name))):
                yield name
            case ast.Subscript(
                value=ast.Name(id="database") | ast.Attribute(attr="database"), slice=ast.Constant(value=str(name))
            ):
                yield name


def test_every_way_to_name_a_collection_is_found() -> None:
    source = 'class A:\n    COLLECTION = "a"\n    COLLECTION: Final = "b"\nx = database["c"]\ny = parts.database["d"]\n'
    assert named_in(source) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("service", COLLECTIONS)
def test_every_collection_of_a_service_is_classified(service: str) -> None:
    files = (ROOT / "services" / service).rglob("*.py")
    named = set().union(*(named_in(path.read_text()) for path in files))
    there = named | set(INDEXES[service]) | {Inbox.COLLECTION, Inbox.TIMERS, SCHEMA}
    assert there == set(COLLECTIONS[service]), (
        "classify it in tests/personal_data.py and cover it in the service's erasure"
    )


async def erased_by(service: str, where: Database) -> tuple[PersonalDataCollection, ...]:
    """The collections that a service deletes from or anonymizes."""
    match service:
        case "auth":
            return AuthPersonalData(where).erased
        case "billing":
            return BillingPersonalData(where).erased
        case "mailer":
            return MailerPersonalData(where, Sealer({"test": bytes(32)})).erased
        case _:
            return news_personal_data(where)


@pytest.mark.parametrize("service", COLLECTIONS)
async def test_an_erasure_does_what_the_classification_says(service: str, mongo_url: str) -> None:
    client = connect(mongo_url, application="tests")
    try:
        holdings = await erased_by(service, database(client, "nobody-writes-here"))
    finally:
        await client.close()
    by_handlers = REMOVED_BY_HANDLERS if service == "auth" else set()
    gone = {holding.collection.name for holding in holdings if holding.redact is None}
    emptied = {holding.collection.name for holding in holdings if holding.redact is not None}
    classified = COLLECTIONS[service].items()
    # Of the user processes the exports are deleted and the erasure stays.
    assert gone - {"user_processes"} | by_handlers == {
        name for name, each in classified if each.effect is Effect.REMOVED
    }
    assert emptied == {name for name, each in classified if each.effect is Effect.ANONYMIZED}


@pytest.mark.parametrize("service", COLLECTIONS)
def test_every_document_that_stays_has_a_reason(service: str) -> None:
    stays = {Effect.ANONYMIZED, Effect.SEALED, Effect.IDS}
    assert [name for name, each in COLLECTIONS[service].items() if each.effect in stays and not each.reason] == []


@pytest.mark.parametrize("service", COLLECTIONS)
def test_the_documents_name_every_collection_with_personal_data(service: str) -> None:
    manual = (ROOT / "docs" / "operations.md").read_text()
    [people] = re.findall(r"^## Personal data\n(.*?)^## ", manual, flags=re.DOTALL | re.MULTILINE)
    [row] = re.findall(rf"^\| {service} \|.*$", people, flags=re.MULTILINE)
    about = [name for name, each in COLLECTIONS[service].items() if each.effect is not Effect.NOT_ABOUT_PEOPLE]
    told = row + people.partition("**In every service**")[2]
    assert [name for name in about if f"`{name}`" not in told] == []
