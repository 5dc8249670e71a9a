"""Embedded mode: all of Nest on one machine, with Kafka and MongoDB from Python packages, without Docker."""
