"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from drsow_plugin.records import Reward

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """Counters of one server.

    Attributes:
        ready: 1 once the models are loaded.
        waiting: Rows that wait or are being scored.
        seconds: From a request to its answer, by path.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.ready = Gauge("drsow_ready", "1 once both models are loaded", registry=registry)
        self.waiting = Gauge(
            "drsow_waiting_rows", "Rows that wait or are being scored", registry=registry
        )
        self.seconds = Histogram(
            "drsow_request_seconds",
            "From a request to its answer",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._requests = Counter(
            "drsow_requests",
            "Requests, by path and HTTP status",
            ["path", "code"],
            registry=registry,
        )
        self._rows = Counter(
            "drsow_rows",
            "Rows, by how they went: ok, or the kind of their problem",
            ["status"],
            registry=registry,
        )
        self._tokens = Counter(
            "drsow_tokens", "Tokens scored, of both models and prompts included", registry=registry
        )
        self._together = Histogram(
            "drsow_rows_scored_together", "Rows of one pass", buckets=_SIZES, registry=registry
        )

    def answered(self, path: str, code: int) -> None:
        """Count a request that was answered with an HTTP status."""
        self._requests.labels(path, str(code)).inc()

    def scored(self, rewards: Sequence[Reward], tokens: int) -> None:
        """Count rows that were scored together, and their tokens."""
        self._together.observe(len(rewards))
        self._tokens.inc(tokens)
        for reward in rewards:
            status = reward.problems[0].kind if reward.problems else "ok"
            self._rows.labels(status).inc()

    def text(self) -> bytes:
        """Return all of them in Prometheus' format."""
        return generate_latest(self._registry)
