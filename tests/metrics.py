"""Values of metrics in this process, for assertions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry


def value(series: str, **labels: Any) -> float:
    """Return the value of a series; 0 if it does not exist yet."""
    return REGISTRY.get_sample_value(series, {name: str(label) for name, label in labels.items()}) or 0.0


def values(family: str) -> dict[tuple[str, ...], float]:
    """Return the values of a counter by its label values, in the order of its labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == family
    }


@contextmanager
def increments(family: str) -> Iterator[dict[tuple[str, ...], float]]:
    """Yield a dictionary that has, after the block, the increments of a counter by its label values."""
    before, found = values(family), dict[tuple[str, ...], float]()
    yield found
    found.update({key: count - before.get(key, 0) for key, count in values(family).items() if count != before.get(key)})


def exported_names(registry: CollectorRegistry = REGISTRY) -> str:
    """Return what services name in their metrics: a line of name and labels for each sample, without its value."""
    samples = (sample for metric in registry.collect() for sample in metric.samples)
    return "\n".join(
        sample.name + " " + ",".join(f'{name}="{label}"' for name, label in sorted(sample.labels.items()))
        for sample in samples
    )
