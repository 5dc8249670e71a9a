"""How does news say no?"""

from shared.errors import Kind, Refusal


class NewsItemEndsBeforeItStarts(Refusal):
    """The item's end is not after its start, so nobody would ever see it."""


class NoSuchAppVersion(Refusal):
    """The item's last version of an app comes before its first, so nobody would ever see it."""


class FallbackMissing(Refusal):
    """Apps that don't know the primary's code would show nothing: give a ``generic_banner`` as the fallback."""


class ActionUrlNotAllowed(Refusal):
    """A URL leads where the settings do not allow, or is no URL; ``meta.schemes`` and ``meta.hosts`` list what is."""


class NewsItemAlreadyExists(Refusal):
    """The id that the operator chose is another item's."""

    kind = Kind.CONFLICT


class NewsItemChanged(Refusal):
    """Somebody changed the item since it was read; ``meta.version`` is the version it has now."""

    kind = Kind.CONFLICT


class NewsItemNotDismissible(Refusal):
    """The item stays for as long as it is live."""

    kind = Kind.CONFLICT
