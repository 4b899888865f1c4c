"""Counters for Prometheus; each server has its own registry, so that two in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The server's counters; /metrics shows ``registry``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory and CPU time, on systems that report them
        PlatformCollector(registry=self.registry)
        name, registry = "mst_clipiqa_", self.registry
        self.requests = Counter(f"{name}requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            f"{name}request_seconds", "Time to answer a request.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.images = Counter(f"{name}images", "Scores, ok or error.", ["status"], registry=registry)
        self.batches = Histogram(f"{name}batch_images", "Images per encoded batch.", buckets=_SIZES, registry=registry)
        self.waiting = Gauge(f"{name}waiting_images", "Scores that wait or are in progress.", registry=registry)
        self.held = Gauge(f"{name}held_bytes", "Bytes of request bodies in memory.", registry=registry)
