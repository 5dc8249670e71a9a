"""Which settings does Kafka need on one small machine?"""

from pathlib import Path

# Every line is here because the default is made for a cluster of servers. Those that matter most:
# dedupe.buffer: with the default the cleaner alone wants 128 MB of heap and the broker dies below that.
# session.timeout: a broker that was killed may register again only after it, 9 s by default.
# index.size.max: two files of 10 MB for each partition by default, and tests make many partitions.
# rebalance.delay: a consumer group would wait 3 s for members who might yet come.
_TEXT = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=2097152
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=65536
log.segment.bytes=134217728
file.delete.delay.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=500
"""


def properties(*, port: int, controller: int, data: Path) -> str:
    """The text of `server.properties` for a broker and controller in one.

    Args:
        port: where clients connect.
        controller: where the broker finds its own controller; another free port.
        data: the folder with its log.
    """
    return _TEXT.format(port=port, controller=controller, data=data)
