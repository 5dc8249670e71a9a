"""Handlers of the rotation of signing keys, by an operator's command or when it is due."""

from __future__ import annotations

from functools import partial

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.signing_keys.key_pairs import generate
from services.auth.signing_keys.keyring import publication
from services.auth.signing_keys.models import GenerateKey, KeySet, RotationPolicy
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
    """Publish a new key, which signs after the lead time; in an emergency, let it replace all others at once."""
    stored = await auth.signing_keys.get_key_set()
    generate_now = _generator(work, auth)
    if command.emergency:
        rotated = stored.replace_all(generate_now(auth.rotation.algorithm), at=work.now)
        _save(stored, rotated, work, auth)
        # A second message withdraws the old keys once every instance knows the new one. Otherwise all
        # logins would fail for a moment.
        work.publish(KeepSigningKeys(key=KEYRING))
    else:
        rotated = stored.rotate(auth.rotation, generate_now, at=work.now)
        _save(stored, rotated, work, auth)
        _schedule_next(rotated, auth.rotation, work)
    return _view(rotated)


async def keep_signing_keys(command: KeepSigningKeys, work: Work, auth: Auth) -> None:
    """Apply every change of the keys that is due, and schedule the next one."""
    policy = auth.rotation
    if command.algorithm is not None:
        # Set by an instance that has just started; this instance may belong to an older deployment.
        policy = RotationPolicy(command.algorithm, policy.period, policy.lead)
    at = work.now if command.due is None else max(work.now, command.due)
    stored = await auth.signing_keys.get_key_set()
    advanced = stored.advance(policy, _generator(work, auth), at=at)
    if advanced != stored:
        # Most of these messages change nothing; they are not audited.
        auth.audit.record(work, "keep_signing_keys")
    _save(stored, advanced, work, auth)
    _schedule_next(advanced, policy, work)


async def list_signing_keys(query: ListSigningKeys, work: Work, auth: Auth) -> SigningKeysView:  # noqa: ARG001
    """List the keys that verify tokens."""
    return _view(await auth.signing_keys.get_key_set())


def _save(before: KeySet, after: KeySet, work: Work, auth: Auth) -> None:
    """Store the keys if they have changed, publish new ones, and withdraw deleted ones."""
    if after != before:
        auth.signing_keys.save(after, work)
    for key in after.keys:
        if key not in before.keys:
            work.publish(publication(key))
    # Published keys may be missing from the store, after the database was restored from a backup or created anew.
    stored = {key.id for key in after.keys}
    for kid in sorted(({key.id for key in before.keys} | auth.keyring.published) - stored):
        work.publish(SigningKeyWithdrawn(key=kid))


def _schedule_next(key_set: KeySet, policy: RotationPolicy, work: Work) -> None:
    """Schedule ``KeepSigningKeys`` for the time of the next change.

    The message ID is derived from that time, so one message remains, however many instances schedule it and however
    often they start.
    """
    due = key_set.next_due(policy)
    moment = iso_milliseconds(due)
    work.publish(KeepSigningKeys(key=KEYRING, due=due), at=due, id=derived_message_id("keep-signing-keys", moment))


def _generator(work: Work, auth: Auth) -> GenerateKey:
    return partial(generate, sealer=auth.sealer, at=work.now)


def _view(key_set: KeySet) -> SigningKeysView:
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
            for key in key_set.keys
        )
    )
