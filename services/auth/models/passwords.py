"""Which passwords may be chosen?"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from shared.messages.auth.errors import FieldRefused

SHORTEST: Final = 8
"""NIST SP 800-63B section 3.1.1.2."""
SHORTEST_OF_OLD_CLIENTS: Final = 6
LONGEST: Final = 255


def normal(password: str) -> str:
    """The one form that is counted and hashed: what two keyboards write differently is the same (NFKC).

    Raises:
        FieldRefused: more than 255 characters.
    """
    # Looked at before as well: a form of 18 times the length is not made of a text of any length.
    found = unicodedata.normalize("NFKC", password) if len(password) <= LONGEST else password
    if len(found) > LONGEST:
        raise FieldRefused("password", f"at most {LONGEST} characters")
    return found


@dataclass(frozen=True, slots=True)
class PasswordRule:
    """What a new password must be.

    Attributes:
        known: the passwords that guessers try first, in lower case.
        old_clients: whether 6 and 7 characters are taken too; those are not looked up among the known ones, of which
            many are so short.
    """

    known: frozenset[str]
    old_clients: bool

    def judge(self, password: str) -> None:
        """Let a new password pass.

        Args:
            password: in its normal form.

        Raises:
            FieldRefused: it is too short, or one of the known ones.
        """
        shortest = SHORTEST_OF_OLD_CLIENTS if self.old_clients else SHORTEST
        if len(password) < shortest:
            raise FieldRefused("password", f"at least {shortest} characters")
        if len(password) >= SHORTEST and password.lower() in self.known:
            raise FieldRefused("password", "one of the passwords that are guessed first; choose another")
