"""How does a receiver know that Stripe sent it? The `Stripe-Signature` header."""

import hmac
import time
from collections.abc import Sequence
from hashlib import sha256


def signature(body: bytes, secrets: Sequence[str], *, at: int | None = None) -> str:
    """Returns the header for a body: the time, one `v1` for each live secret, and a `v0`.

    Receivers must ignore `v0`, which Stripe sends in test mode only (docs.stripe.com/webhooks).

    Args:
        body: The exact bytes that are sent.
        secrets: All that are live; two while one is being replaced.
        at: Unix seconds of the real clock, now by default: receivers compare it with theirs.
    """
    moment = int(time.time()) if at is None else at
    signed = b"%d.%b" % (moment, body)
    proofs = [f"v1={hmac.new(secret.encode(), signed, sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={moment}", *proofs, f"v0={sha256(signed).hexdigest()}"])
