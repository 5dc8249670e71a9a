"""How does one signing key follow the other? By the operator's order, or when its time has come."""

from __future__ import annotations

from functools import partial

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.signing_keys.key_pairs import make
from services.auth.signing_keys.keyring import published
from services.auth.signing_keys.models import KeySet, Make, RotationPolicy
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import iso_milliseconds
from shared.messages.auth.signing_keys import (
    KEYRING,
    KeepSigningKeys,
    ListSigningKeys,
    RotateSigningKeys,
    SigningKeysView,
    SigningKeyView,
    SigningKeyWithdrawn,
)


@audited("rotate_signing_keys")
async def rotate_signing_keys(command: RotateSigningKeys, work: Work, auth: Auth) -> SigningKeysView:
    """Let a new key follow: after its lead time, or in an emergency at once and in place of all others."""
    ring = await auth.signing_keys.get()
    make_now = _maker(work, auth)
    if command.emergency:
        rotated = ring.replace_all(make_now(auth.rotation.algorithm), at=work.now)
        _change(ring, rotated, work, auth)
        # The others are withdrawn by a message of its own, when every instance has heard of the new key: else there
        # would be a moment in which nobody could log in.
        work.publish(KeepSigningKeys(key=KEYRING))
    else:
        rotated = ring.rotate(auth.rotation, make_now, at=work.now)
        _change(ring, rotated, work, auth)
        _come_back(rotated, auth.rotation, work)
    return _view(rotated)


async def keep_signing_keys(command: KeepSigningKeys, work: Work, auth: Auth) -> None:
    """Do what is due, and leave an order for the next time; those of a start and of a timer end in the same one."""
    rotation = auth.rotation
    if command.algorithm is not None:
        # Said by an instance that has just started; this one may be of an older deployment.
        rotation = RotationPolicy(command.algorithm, rotation.period, rotation.lead)
    at = work.now if command.due is None else max(work.now, command.due)
    ring = await auth.signing_keys.get()
    kept = ring.keep(rotation, _maker(work, auth), at=at)
    if kept != ring:
        # Looks that find nothing to do are many, and tell nothing.
        auth.audit.record(work, "keep_signing_keys")
    _change(ring, kept, work, auth)
    _come_back(kept, rotation, work)


async def list_signing_keys(query: ListSigningKeys, work: Work, auth: Auth) -> SigningKeysView:  # noqa: ARG001
    """Every key that verifies tokens."""
    return _view(await auth.signing_keys.get())


def _change(before: KeySet, after: KeySet, work: Work, auth: Auth) -> None:
    """Store the keys if they have changed, and tell everybody how."""
    if after != before:
        auth.signing_keys.save(after, work)
    for key in after.keys:
        if key not in before.keys:
            work.publish(published(key))
    # Among the announced ones may be some that no store knows: from before a database was restored, or made anew.
    there = {key.id for key in after.keys}
    for kid in sorted(({key.id for key in before.keys} | auth.keyring.announced) - there):
        work.publish(SigningKeyWithdrawn(key=kid))


def _come_back(ring: KeySet, rotation: RotationPolicy, work: Work) -> None:
    """Order a look at the next time at which something is due.

    Its id says what for, so that of all who order the same look one is kept, however many instances there are and
    however often they start.
    """
    due = ring.next_due(rotation)
    moment = iso_milliseconds(due)
    work.publish(KeepSigningKeys(key=KEYRING, due=due), at=due, id=derived_message_id("keep-signing-keys", moment))


def _maker(work: Work, auth: Auth) -> Make:
    return partial(make, sealer=auth.sealer, at=work.now)


def _view(ring: KeySet) -> SigningKeysView:
    return SigningKeysView(
        keys=tuple(
            SigningKeyView(
                kid=key.id,
                algorithm=key.algorithm,
                state=key.state.value,
                created_at=key.created_at,
                signs_from=key.signs_from,
                verifies_until=key.verifies_until,
            )
            for key in ring.keys
        )
    )
