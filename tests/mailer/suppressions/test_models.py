"""Replies and status codes that prove a dead address, in the words of the servers that send them."""

import pytest

from services.mailer.suppressions.models import precise_status, shows_dead_address


@pytest.mark.parametrize(
    ("status", "reply", "precise", "dead"),
    [
        ("5.1.1", "550 5.1.1 no such user", "5.1.1", True),
        ("5.1.1", "550 no such user", "5.1.1", True),
        ("5.1.1", "", "5.1.1", True),
        ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found", "5.1.10", True),
        ("5.1.351", "550 5.1.351 Remote server returned unknown recipient", "5.1.351", True),
        ("5.2.1", "550-5.2.1 The email account is disabled. 550 5.2.1 https://mailbox.example", "5.2.1", True),
        # RFC 3464 section 2.3.6: the diagnostic code is more precise than an unspecific status.
        ("5.0.0", "550 5.1.1 <<address>>... User unknown", "5.1.1", True),
        ("5.1.0", "550 5.1.1 User unknown", "5.1.1", True),
        ("5.0.0", "550-5.1.1 The account does not exist. 550 5.1.1 gsmtp", "5.1.1", True),
        ("5.0.0", "550 #5.1.1 bad address", "5.1.1", True),
        ("5.0.0", "550 sorry, no mailbox here by that name (#5.1.1 - chkusr)", "5.1.1", True),
        ("5.0.0", "5.1.0 - Unknown address error 550-'5.1.1 <<address>>... unknown'", "5.1.1", True),
        (None, "550 5.1.1 User unknown", "5.1.1", True),
        # Postfix's words around a reply.
        ("5.0.0", "host mx.antispam.example[192.0.2.1] said: 550 5.1.1 User unknown", "5.1.1", True),
        ("5.0.0", "host mx.example[192.0.2.1] said: 550-5.1.1 gone (in reply to RCPT TO command)", "5.1.1", True),
        ("5.1.1", "host mx.example[192.0.2.1] said: 450 4.1.1 User unknown", "5.1.1", False),
        ("5.1.1", "host mx.example[192.0.2.1] said: 550 User unknown (in reply to MAIL FROM command)", "5.1.1", False),
        # A check of our own address.
        ("5.1.1", "550 5.1.1 <<address>>: Sender address rejected: User unknown in table", "5.1.1", False),
        ("5.0.0", "550 Sender verify failed: host mx.example said: 550 5.1.1 unknown", "5.0.0", False),
        ("5.0.0", "550 5.2.2 Mailbox full", "5.2.2", False),
        ("5.0.0", "5.1.0 - Unknown address error 550-'5.2.2 <<address>>... Mailbox Full'", "5.2.2", False),
        ("5.0.0", "550 #5.1.0 Address rejected.", "5.1.0", False),
        # Mobile carriers reply in these words to a sender that the recipient filters.
        ("5.0.0", "550 <<address>>: User unknown", "5.0.0", False),
        ("5.0.0", "550 go away", "5.0.0", False),
        ("5.0.0", "550 [192.0.2.1] 5.1.1.1 is not a code", "5.0.0", False),
        ("4.0.0", "451 4.7.1 later", "4.7.1", False),
        # Exchange Online's directory-based edge blocking, and what else 5.4.1 means.
        ("5.4.1", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "5.4.1", True),
        ("5.4.1", "550 5.4.1 [<address>]: Recipient address rejected: Access denied [X.prod.example]", "5.4.1", True),
        ("5.0.0", "550 5.4.1 <<address>>: Recipient address rejected: Access denied", "5.4.1", True),
        ("5.4.1", "Recipient address rejected: Access denied", "5.4.1", True),
        ("5.4.1", "550 5.4.1 All recipient addresses rejected : Access denied. AS(201806271)", "5.4.1", True),
        ("5.7.1", "550 5.7.1 <<address>>: Recipient address rejected: Access denied", "5.7.1", False),
        ("5.4.1", "541 5.4.1 Mail rejected by destination domain", "5.4.1", False),
        ("5.4.1", "550 5.4.1 Relay access denied", "5.4.1", False),
        # The code of a dead address for an address that exists.
        ("5.1.1", "550 5.1.1 <<address>> - 192.0.2.1 has sent to too many recipients this hour. IB607", "5.1.1", False),
        ("5.2.1", "550-5.2.1 The user is receiving mail at a rate that prevents additional messages", "5.2.1", False),
        ("5.1.1", "550 5.1.1 Refused due to recipient preferences", "5.1.1", False),
        ("5.1.3", "553 http://www.spamhaus.example/query/bl?ip=192.0.2.1", "5.1.3", False),
        ("5.1.1", "552 5.1.1 Boite du destinataire pleine", "5.1.1", False),
        ("5.2.1", "550 5.2.1 Mailbox temporarily disabled", "5.2.1", False),
        ("5.2.1", "550 5.2.1 The inbox of the user is full", "5.2.1", False),
        ("5.1.1", "550 5.1.1 Recipient has exceeded the number of messages", "5.1.1", False),
        ("5.2.1", "550 5.2.1 The recipient has blocked you", "5.2.1", False),
        ("5.1.1", "550 5.1.1 Service refused, please try later", "5.1.1", False),
        # A status that a server in between derived from 550.
        ("5.1.1", "550 5.7.1 IP address blacklisted by recipient", "5.1.1", False),
        ("5.1.1", "552 5.2.2 Over quota", "5.1.1", False),
        ("5.1.1", "550 Denied by policy", "5.1.1", False),
        ("5.1.1", "550 DMARC check failed", "5.1.1", False),
        ("5.1.1", "550 relay not permitted", "5.1.1", False),
        ("5.1.1", "550 5.1.1 User unknown in relay recipient table", "5.1.1", True),
        ("5.1.3", "553 sorry, your envelope recipient is in my badrcptto list (#5.7.1)", "5.1.3", False),
        (None, "450 4.1.1 User unknown", "4.1.1", False),
    ],
)
def test_dead_address_is_proved_by_the_status_and_the_reply(
    *, status: str | None, reply: str, precise: str, dead: bool
) -> None:
    assert precise_status(status, reply) == precise
    assert shows_dead_address(reply, status) is dead


@pytest.mark.parametrize(("reply", "dead"), [("", True), ("no such user", True), ("421 timeout", False)])
def test_reply_without_any_code_proves_nothing_by_itself(reply: str, *, dead: bool) -> None:
    assert precise_status(None, reply) is None
    assert not shows_dead_address(reply)
    assert shows_dead_address(reply, without_code=True) is dead
