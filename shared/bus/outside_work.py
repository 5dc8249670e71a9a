"""Sending of messages that no handled message causes."""

from __future__ import annotations

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.producer import Producer
from shared.ids import new_message_id
from shared.messages import SERVICE, Caller, Message
from shared.sealing import Sealer


async def publish_outside_work(producer: Producer, sealer: Sealer, message: Message, caller: Caller = SERVICE) -> None:
    """Send a message that no handled message causes.

    Raises:
        BusDown: Kafka did not acknowledge it in time.
    """
    envelope = Envelope(
        id=new_message_id(),
        wire=message.wire,
        topic=message.topic,
        key=message.key,
        body=encode(message, sealer),
        time=unix_milliseconds(),
        caller=caller,
    )
    await producer.send(envelope)
