"""Which measurements there are, in which order, and how long they will take."""

import contextlib
import http.client
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from . import backends
from .loads import CORE_LOADS, DIRECT, QUICK_PEER_LOADS, Bench, Load
from .process import BenchError
from .proxies import PEERS, Proxy
from .results import PINNED, Figures, Measurement, Results


@dataclass(frozen=True)
class Settings:
    modes: list[str]
    loads: list[Load]
    # Whether the loads were named: then they are meant for every mode.
    are_chosen: bool
    # None is no proxy at all.
    proxies: list[Proxy | None]
    rounds: int
    seconds: int
    quick: bool
    out: pathlib.Path

    def loads_of(self, mode: str) -> list[Load]:
        if mode == PINNED or self.are_chosen:
            return self.loads
        return [load for load in self.loads if load.name in CORE_LOADS]

    def proxies_of(self, load: Load) -> list[Proxy | None]:
        return [proxy for proxy in self.proxies if self.takes_part(proxy, load)]

    def takes_part(self, proxy: Proxy | None, load: Load) -> bool:
        if load.proxies is not None and (proxy is None or proxy.name not in load.proxies):
            return False
        is_peer = proxy is not None and proxy.name in PEERS
        return not (self.quick and is_peer and not self.are_chosen) or load.name in QUICK_PEER_LOADS


@dataclass(frozen=True)
class Step:
    mode: str
    round: int
    load: Load
    proxy: Proxy | None

    @property
    def proxy_name(self) -> str:
        return self.proxy.name if self.proxy else DIRECT


def plan(settings: Settings, mode: str) -> list[Step]:
    """Round by round and load by load every proxy; who is first changes with the round and the load."""
    steps = []
    for round_number in range(1, settings.rounds + 1):
        for place, load in enumerate(settings.loads_of(mode)):
            proxies = settings.proxies_of(load)
            first = (round_number + place) % max(len(proxies), 1)
            steps += [Step(mode, round_number, load, proxy) for proxy in proxies[first:] + proxies[:first]]
    return steps


class Clock:
    """How much is left, by how long the steps so far took against what was expected of them."""

    def __init__(self, steps: list[Step], seconds: int) -> None:
        self.expected = {id(step): step.load.seconds(seconds) for step in steps}
        self.left = sum(self.expected.values())
        self.done = 0.0
        self.began = time.monotonic()

    def count(self, step: Step) -> str:
        self.done += self.expected[id(step)]
        self.left -= self.expected[id(step)]
        seconds = round(self.left * (time.monotonic() - self.began) / self.done)
        return f"{seconds // 60}:{seconds % 60:02} left"


def run(settings: Settings, results: Results) -> None:
    plans = {mode: plan(settings, mode) for mode in settings.modes}
    clock = Clock([step for steps in plans.values() for step in steps], settings.seconds)
    for mode, steps in plans.items():
        with bench_of(mode, settings) as bench:
            for step in steps:
                measurement = measure(bench, step)
                results.add(measurement)
                print(f"{line_of(step, measurement, settings.rounds)}  {clock.count(step)}", flush=True)


@contextlib.contextmanager
def bench_of(mode: str, settings: Settings) -> Iterator[Bench]:
    every = os.sched_getaffinity(0)
    pinned = mode == PINNED
    load_cpus, proxy_cpus = ({min(every)}, {max(every)}) if pinned else (every, every)
    workers = 1 if pinned else 2
    ports = backends.free_ports(2 * len(settings.proxies) + 2)
    # What asks the first question of each measurement is part of the load.
    os.sched_setaffinity(0, load_cpus)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="l4lb-bench.") as directory,
            backends.web_server(pathlib.Path(directory), load_cpus, workers) as web,
        ):
            yield Bench(
                work=pathlib.Path(directory),
                load_cpus=load_cpus,
                proxy_cpus=proxy_cpus,
                workers=workers,
                seconds=settings.seconds,
                quick=settings.quick,
                web=web,
                ports={proxy.name: [ports.pop(), ports.pop()] for proxy in settings.proxies if proxy},
                bulk_port=ports.pop(),
                echo_port=ports.pop(),
            )
    finally:
        os.sched_setaffinity(0, every)


def measure(bench: Bench, step: Step) -> Measurement:
    try:
        figures, failure = step.load.measure(bench, step.proxy), None
    except (BenchError, OSError, ValueError, http.client.HTTPException) as error:
        figures, failure = Figures(), str(error) or repr(error)
    return Measurement(step.mode, step.round, step.load.name, step.proxy_name, figures, failure)


def line_of(step: Step, measurement: Measurement, rounds: int) -> str:
    head = f"{step.mode:8} {step.round}/{rounds} {step.load.name:14} {step.proxy_name:14}"
    told = f"FAILED: {measurement.failure}" if measurement.failure else brief(step.load, measurement.figures)
    return f"{head} {told}"


def brief(load: Load, figures: Figures) -> str:
    """The figures that there are, in so many columns."""
    per = {"request": "us/request", "GB": "ms/GB"}.get(load.unit, "")
    rate_unit = "Gbit/s" if load.unit == "GB" and figures.requests is None else "req/s"
    shown = [
        (figures.rate, ",.1f" if rate_unit == "Gbit/s" else ",.0f", rate_unit),
        (figures.bulk, ".1f", "Gbit/s beside"),
        (figures.p50, ".2f", "ms p50"),
        (figures.p99, ".2f", "ms p99"),
        (figures.proxy_cpu, ".1f", per),
        (figures.machine_cpu, ".1f", f"{per} machine"),
        (figures.start, ".3f", "s to serve"),
        (figures.memory, ",.0f", "bytes"),
    ]
    return "  ".join(f"{value:{form}} {unit}" for value, form, unit in shown if value is not None)
