"""Measurements, their medians, and the file of raw figures."""

import json
import pathlib
import statistics
from dataclasses import asdict, dataclass

PINNED = "pinned"
UNPINNED = "unpinned"


@dataclass(frozen=True)
class Figures:
    """What one run of a load through one proxy gave; None where the load does not report it."""

    # Requests a second, or Gbit a second of a bulk load.
    rate: float | None = None
    # Milliseconds of a request.
    p50: float | None = None
    p99: float | None = None
    # Gbit a second of the streams beside the requests.
    bulk: float | None = None
    # Processor time in microseconds a request, or milliseconds a GB.
    proxy_cpu: float | None = None
    processes_cpu: float | None = None
    machine_cpu: float | None = None
    # Bytes that a session adds, or that the process has.
    memory: float | None = None
    # Seconds until it serves.
    start: float | None = None
    # What the others were computed from.
    elapsed: float | None = None
    requests: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Measurement:
    mode: str
    round: int
    load: str
    proxy: str
    figures: Figures
    failure: str | None


class Results:
    def __init__(self) -> None:
        self.measurements: list[Measurement] = []

    def add(self, measurement: Measurement) -> None:
        self.measurements.append(measurement)

    def failures(self) -> list[Measurement]:
        return [measurement for measurement in self.measurements if measurement.failure]

    def median(self, mode: str, load: str, proxy: str, figure: str) -> float | None:
        values = [
            value
            for measurement in self.measurements
            if (measurement.mode, measurement.load, measurement.proxy) == (mode, load, proxy)
            and measurement.failure is None
            and (value := getattr(measurement.figures, figure)) is not None
        ]
        return statistics.median(values) if values else None

    def modes(self) -> list[str]:
        return list(dict.fromkeys(measurement.mode for measurement in self.measurements))

    def loads(self, mode: str) -> list[str]:
        return list(dict.fromkeys(measurement.load for measurement in self.measurements if measurement.mode == mode))

    def write(self, file: pathlib.Path, about: dict[str, object]) -> None:
        rows = [without_gaps(asdict(measurement)) for measurement in self.measurements]
        file.write_text(json.dumps({**about, "measurements": rows}, indent=1) + "\n")


def without_gaps(row: dict) -> dict:
    row["figures"] = {key: value for key, value in row["figures"].items() if value is not None}
    return row
