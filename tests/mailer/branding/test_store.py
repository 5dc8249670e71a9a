from dataclasses import fields

from services.mailer.branding.models import Branding
from services.mailer.branding.store import BrandingCache
from shared.messages.mailer.branding import ClientLooks
from tests.mailer.branding.test_handlers import CHOSEN, set_branding
from tests.service_harness import ServiceHarness

DEFAULT = Branding(product_name="Nest", sender_address="mail@nest.example", support_address="help@nest.example")


def test_fields_that_were_not_chosen_come_from_the_settings() -> None:
    branding = DEFAULT.overridden_by(ClientLooks(accent_colour="#000000"))
    changed = {each.name for each in fields(Branding) if getattr(branding, each.name) != getattr(DEFAULT, each.name)}
    assert changed == {"accent_colour"}
    # The deployment's sender name in front of another address would mislead.
    assert DEFAULT.overridden_by(ClientLooks(sender_address="a@b.example")).sender == "Nest <a@b.example>"


async def test_change_takes_effect_within_a_second(harness: ServiceHarness) -> None:
    now = 0.0
    cache = BrandingCache(DEFAULT, harness.context.client_brandings, clock=lambda: now)
    assert (await cache.get("client_1")).product_name == "Nest"
    await set_branding(harness, **CHOSEN)
    now = 0.9
    assert (await cache.get("client_1")).product_name == "Nest"
    now = 1.0
    assert (await cache.get("client_1")).product_name == "Beak, Inc."
    assert await cache.get(None) == DEFAULT
