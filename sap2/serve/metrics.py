"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """What a server counts. Each has a registry of its own, so that a process may have several."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "sap2_requests", "Requests that were answered", ["endpoint", "status"], registry=registry
        )
        self.errors = Counter("sap2_errors", "Requests that were refused or failed", ["status"], registry=registry)
        self.seconds = Histogram(
            "sap2_request_seconds",
            "From a request to the end of its answer",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.audio = Counter("sap2_audio_seconds", "Audio that was transcribed", registry=registry)
        self.computing = Counter("sap2_computing_seconds", "Computing time of the stages", registry=registry)
        self.factor = Gauge(
            "sap2_real_time_factor", "Computing time of an audio second, since the start", registry=registry
        )
        self.queue = Gauge("sap2_requests_in_progress", "Requests that are served or wait", registry=registry)
        self.batches = Histogram(
            "sap2_batch_pieces", "Pieces that were decoded together", buckets=_SIZES, registry=registry
        )
        self.ready = Gauge("sap2_ready", "1 when the server answers", registry=registry)
        self._heard = self._computed = 0.0

    def note_segment(self, audio_seconds: float, computing_seconds: float) -> None:
        """Count a piece that was decoded."""
        self.audio.inc(audio_seconds)
        self.computing.inc(computing_seconds)
        self._heard += audio_seconds
        self._computed += computing_seconds
        if self._heard:
            self.factor.set(self._computed / self._heard)

    def note_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)
        if status >= 400:
            self.errors.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' format."""
        return generate_latest(self._registry)
