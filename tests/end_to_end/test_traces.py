"""Traces: the spans of one login, as an OTLP receiver gets them (semantic conventions 1.44.0)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.stack import Login, Stack, eventually
from tests.traces import ReceivedSpan, Traces

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Trace context of the proxy; `separate` trusts this machine."""
TRACE, PROXY = REMOTE.split("-")[1:3]
SERVER = {
    *("http.request.method", "http.route", "http.response.status_code", "url.scheme", "url.path"),
    *("server.address", "server.port", "network.protocol.version"),
}
SEND = {
    *("messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name"),
    *("messaging.destination.partition.id", "messaging.kafka.offset", "messaging.client.id"),
    *("server.address", "server.port"),
}
PROCESS = {
    *("messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name"),
    *("messaging.destination.partition.id", "messaging.kafka.offset", "messaging.client.id"),
    *("messaging.consumer.group.name", "messaging.message.id", "nest.message.type", "nest.message.outcome"),
}
MONGO = {"db.system.name", "db.operation.name", "db.namespace", "server.address", "server.port"}
SMTP = {"network.protocol.name", "network.transport", "server.address", "server.port"}


class Tree:
    """The spans of one trace."""

    def __init__(self, spans: list[ReceivedSpan]) -> None:
        self.spans = spans

    def one(self, kind: str, name: str, parent: str) -> ReceivedSpan:
        """The only span of a kind with a name below a parent."""
        found = [each for each in self.below(parent) if (each.kind, each.name) == (kind, name)]
        assert len(found) == 1, (kind, name, self.shape())
        return found[0]

    def below(self, parent: str) -> list[ReceivedSpan]:
        return [each for each in self.spans if each.parent == parent]

    def shape(self) -> str:
        return "\n".join(self._lines(PROXY, ""))

    def _lines(self, parent: str, indent: str) -> Iterator[str]:
        for each in self.below(parent):
            yield f"{indent}{each.kind} {each.name} ({each.service})"
            yield from self._lines(each.id, indent + "  ")


def process_of(tree: Tree, sent: ReceivedSpan, service: str) -> ReceivedSpan:
    """The span of the service that has processed a sent message."""
    return next(each for each in tree.below(sent.id) if each.kind == "CONSUMER" and each.service == service)


async def test_a_magic_link_is_one_trace_from_the_call_to_the_mail(separate: Stack, traces: Traces, email: str) -> None:
    nest, login = separate, Login(email)
    prefix = nest.environment["NEST_TOPIC_PREFIX"]
    before = len(traces.bodies)
    answer = await nest.call("send_magic_link", login.request(), traceparent=REMOTE)
    assert answer.status_code == 204, answer.text
    mail = await nest.mail(email)

    def complete() -> Tree | None:
        spans = [each for each in traces.spans if each.trace == TRACE]
        ids = {each.id for each in spans}
        # Every process exports on its own.
        whole = {"SERVER", "smtp send"} <= {text for each in spans for text in (each.kind, each.name)}
        return Tree(spans) if whole and all(each.parent in ids for each in spans if each.kind != "SERVER") else None

    tree: Tree = await eventually(complete, within=30, what="the trace")
    call = tree.one("SERVER", "POST /1/2021-10-06/send_magic_link", PROXY)
    command = tree.one("PRODUCER", f"send {prefix}auth.commands", call.id)
    handled = process_of(tree, command, "nest-auth")
    order = tree.one("PRODUCER", f"send {prefix}mailer.commands", handled.id)
    mailed = process_of(tree, order, "nest-mailer")
    smtp = tree.one("CLIENT", "smtp send", mailed.id)
    reply = tree.one("PRODUCER", f"send {prefix}gateway.replies", handled.id)
    found = next(each for each in tree.below(mailed.id) if each.name == "find inbox")
    commit = tree.one("INTERNAL", "commit", handled.id)
    insert = tree.one("CLIENT", "insert inbox", commit.id)
    tree.one("CLIENT", "commitTransaction admin", commit.id)
    assert [call.service, command.service, reply.service] == ["nest-gateway", "nest-gateway", "nest-auth"]
    assert reply.id in call.links, "the call is linked to its reply"
    assert command.id in handled.links

    for span, names in (
        *((call, SERVER), (command, SEND), (order, SEND), (reply, SEND), (handled, PROCESS), (mailed, PROCESS)),
        *((found, MONGO | {"db.collection.name"}), (insert, MONGO | {"db.collection.name"}), (smtp, SMTP)),
    ):
        assert names <= set(span.attributes), (span.name, names - set(span.attributes))
    assert call.attributes["http.request.method"] == "POST"
    assert call.attributes["http.route"] == "/1/2021-10-06/send_magic_link"
    assert call.attributes["http.response.status_code"] == 204
    assert handled.attributes["messaging.operation.type"] == "process"
    assert handled.attributes["nest.message.type"] == "auth.send-magic-link"
    assert handled.attributes["nest.message.outcome"] == "done"
    assert handled.attributes["messaging.message.id"] == command.attributes["messaging.message.id"]
    assert handled.attributes["messaging.kafka.offset"] == command.attributes["messaging.kafka.offset"]
    assert insert.attributes["db.system.name"] == "mongodb"
    assert insert.attributes["db.operation.name"] == "insert"
    assert insert.attributes["db.namespace"] == nest.environment["NEST_DATABASE_PREFIX"] + "auth"
    assert smtp.attributes["server.port"] == nest.inbox.smtp_port
    assert not [each.name for each in tree.spans if each.failed]
    assert {each.schema for each in tree.spans} == {"https://opentelemetry.io/schemas/1.44.0"}
    assert {each.resource["service.namespace"] for each in tree.spans} == {"nest"}

    exported = b"".join(traces.bodies[before:])
    link = next(each for each in mail.links if "code=" in each)
    code = link.partition("code=")[2].partition("&")[0]
    secrets = [nest.internal_key, nest.environment["NEST_STRIPE_API_KEY"], login.state, login.challenge, code, email]
    for secret in (*secrets, "127.0.0.1,", nest.environment["NEST_SEALING_KEYS"]):
        assert secret.encode() not in exported, secret
