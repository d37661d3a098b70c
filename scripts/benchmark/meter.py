"""What a load costs: processor time of the proxy, of all processes that take part, and of the machine."""

import os
import pathlib
import resource
import time
from dataclasses import dataclass
from typing import Self

from .process import Process


@dataclass(frozen=True)
class Usage:
    """Seconds."""

    elapsed: float
    # All threads of the proxy; None without one.
    proxy: float | None
    # Proxy, load and backends. Less than what they cause: the kernel does part of the work in softirqs.
    processes: float
    # All that was not idle, by the ticks of the machine: with softirqs, and with whatever else was running.
    machine: float


@dataclass(frozen=True)
class Reading:
    at: float
    proxy: dict[int, int]
    lasting: dict[int, int]
    ended: float
    machine: float


class Meter:
    """A context around a load. Clients that begin and end inside count, in `processes`, once they were waited for."""

    usage: Usage

    def __init__(self, proxy: Process | None, backends: list[Process]) -> None:
        self.proxy = proxy
        self.backends = backends

    def __enter__(self) -> Self:
        self.before = self.read()
        return self

    def __exit__(self, *_: object) -> None:
        before, after = self.before, self.read()
        proxy = seconds_between(before.proxy, after.proxy)
        lasting = seconds_between(before.lasting, after.lasting)
        self.usage = Usage(
            elapsed=after.at - before.at,
            proxy=proxy if self.proxy else None,
            processes=proxy + lasting + after.ended - before.ended,
            machine=after.machine - before.machine,
        )

    def read(self) -> Reading:
        lasting: dict[int, int] = {}
        for backend in self.backends:
            lasting |= backend.cpu_of_threads()
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Reading(
            at=time.monotonic(),
            proxy=self.proxy.cpu_of_threads() if self.proxy else {},
            lasting=lasting,
            ended=ended.ru_utime + ended.ru_stime,
            machine=machine_seconds(),
        )


def seconds_between(before: dict[int, int], after: dict[int, int]) -> float:
    """Seconds, summed over the threads."""
    return sum(spent - before.get(thread, 0) for thread, spent in after.items()) / 1e9


def machine_seconds() -> float:
    """proc_stat(5): the first line sums up all processors; idle and iowait are no work, steal is not ours."""
    line = pathlib.Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, line.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
