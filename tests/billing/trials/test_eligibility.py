import pytest

from services.billing.trials.eligibility import unaliased


@pytest.mark.parametrize(
    ("address", "person"),
    [
        ("ada@example.com", "ada@example.com"),
        # RFC 5233: the detail after a plus.
        ("ada+news@example.com", "ada@example.com"),
        ("ada+a+b@example.com", "ada@example.com"),
        ("ada+@example.com", "ada@example.com"),
        # Without anything before the plus it is no tag.
        ("+ada@example.com", "+ada@example.com"),
        # Dots are another mailbox, except where they do not count.
        ("a.da@example.com", "a.da@example.com"),
        ("a.d.a@gmail.com", "ada@gmail.com"),
        ("a.d.a+news@gmail.com", "ada@gmail.com"),
        ("a.da@googlemail.com", "ada@gmail.com"),
        ("a.da@mail.gmail.com", "a.da@mail.gmail.com"),
        ("a.da@notgmail.com", "a.da@notgmail.com"),
        ("ada-news@example.com", "ada-news@example.com"),
    ],
)
def test_tags_and_meaningless_dots_are_removed(address: str, person: str) -> None:
    assert unaliased(address) == person
    assert unaliased(person) == person
