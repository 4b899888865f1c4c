"""What the server counts, for Prometheus; one registry a server, so that two in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The server's counters; ``registry`` is what /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory and processor time, where the system tells
        PlatformCollector(registry=self.registry)
        name, registry = "mst_clipiqa_", self.registry
        self.requests = Counter(f"{name}requests", "Requests answered.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            f"{name}request_seconds", "From head to answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self.images = Counter(f"{name}images", "Scores given, ok or error.", ["status"], registry=registry)
        self.batches = Histogram(
            f"{name}batch_images", "Images encoded in one step.", buckets=_SIZES, registry=registry
        )
        self.waiting = Gauge(f"{name}waiting_images", "Scores that wait or are worked on.", registry=registry)
        self.held = Gauge(f"{name}held_bytes", "Bytes of request bodies in memory.", registry=registry)
