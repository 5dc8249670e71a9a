"""How does news say no?"""

from shared.errors import Kind, Refusal


class NewsItemEndsBeforeItStarts(Refusal):
    """The item's end is not after its start, so nobody would ever see it."""


class ActionUrlNotAllowed(Refusal):
    """The URL behind a button leads where the settings do not allow, or is no URL; ``meta.schemes`` lists what is."""


class NewsItemAlreadyExists(Refusal):
    """The id that the operator chose is another item's."""

    kind = Kind.CONFLICT
