from datetime import UTC, datetime, timedelta

import pytest

from services.auth.account_links.models import AccountLink
from services.auth.tokens.credentials import Code
from shared.messages.auth.account_links import LinkKind
from shared.messages.auth.errors import LinkNotValid

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
LIFETIMES: list[tuple[LinkKind, timedelta]] = [("reset", timedelta(minutes=30)), ("verify", timedelta(days=1))]


@pytest.mark.parametrize(("kind", "lifetime"), LIFETIMES)
def test_link_opens_its_kind_until_it_expires(kind: LinkKind, lifetime: timedelta) -> None:
    link = AccountLink.issue(kind, "user", "an account", "ada@example.com", Code("id", "k" * 64), at=AT)
    link.must_open(kind, at=AT + lifetime - timedelta(milliseconds=1))
    for other, at in ((kind, AT + lifetime), ("reset" if kind == "verify" else "verify", AT)):
        with pytest.raises(LinkNotValid):
            link.must_open(other, at=at)


def test_key_is_stored_as_a_hash() -> None:
    link = AccountLink.issue("reset", "user", "an account", "ada@example.com", Code("id", "k" * 64), at=AT)
    assert "k" * 64 not in repr(link)
