"""The bus: messages over Kafka, each of which takes effect once.

The way of a message through a service, in order: ``consumer``, ``keyed_executor``, ``delivery``, ``handling``,
``work``, ``inbox``, ``producer``.
"""
