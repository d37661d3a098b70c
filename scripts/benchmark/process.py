"""Processes that end with the benchmark, and what the kernel says of them."""

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Self

LOOK_AGAIN_AFTER = 0.002
# With ten thousand backends the slowest takes eleven.
START_SECONDS_MAX = 40


class BenchError(Exception):
    """A measurement that cannot be trusted, and why."""


class Process:
    """A program in a session of its own, so that whatever it forks is counted and ended with it.

    Used as a context; what it says is in two files, because a pipe that nobody reads would stop it.
    """

    def __init__(self, name: str, command: list[str], work: pathlib.Path, cpus: set[int], nice: int = 0) -> None:
        self.name = name
        # The kernel ends it even when the benchmark has no chance to.
        self.command = ["setpriv", "--pdeathsig", "KILL", "--"]
        self.command += ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus)))]
        self.command += ["nice", "-n", str(nice), *command] if nice else command
        self.work = work
        self.out = work / f"{name}.out"
        self.log = work / f"{name}.log"

    def __enter__(self) -> Self:
        with open(self.out, "wb") as out, open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                self.command, cwd=self.work, stdin=subprocess.PIPE, stdout=out, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            # It has ended, and all it forked has.
            pass
        self.popen.wait()
        if self.popen.stdin:
            self.popen.stdin.close()

    def wait(self, seconds: float) -> str:
        """What it wrote to standard output, once it has ended well."""
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self.name} has not ended within {seconds:.0f} s: {self.evidence()}") from error
        if code != 0:
            raise BenchError(f"{self.name}: exit code {code}: {self.evidence()}")
        return self.out.read_text()

    def tell(self, line: str) -> None:
        self.popen.stdin.write(f"{line}\n".encode())
        self.popen.stdin.flush()

    def expect_running(self) -> None:
        if self.popen.poll() is not None:
            raise BenchError(f"{self.name} has ended with exit code {self.popen.returncode}: {self.evidence()}")

    def evidence(self) -> str:
        said = (self.out.read_text(errors="replace") + self.log.read_text(errors="replace")).strip()
        return " / ".join(said.splitlines()[-4:])[-600:] or "it said nothing"

    def await_that(
        self, what: str, seconds: float, holds: Callable[[], bool], look_again_after: float = LOOK_AGAIN_AFTER
    ) -> None:
        """Looks until it holds; an end of the process is an end of the wait."""
        deadline = time.monotonic() + seconds
        while not holds():
            if self.popen.poll() is not None:
                code = self.popen.returncode
                raise BenchError(f"{self.name} ended with exit code {code} before it {what}: {self.evidence()}")
            if time.monotonic() > deadline:
                raise BenchError(f"waited in vain until {self.name} {what}: {self.evidence()}")
            time.sleep(look_again_after)

    def await_listening(self, ports: list[int], seconds: float = START_SECONDS_MAX) -> None:
        """Looks at the kernel's table: a connection that only knocks would be served, and be in the way."""
        self.await_that(f"listens on {ports}", seconds, lambda: set(ports) <= listening_ports())

    def await_line(self, text: str, count: int = 1, seconds: float = 10) -> None:
        self.await_that(f"says '{text}'", seconds, lambda: self.out.read_text().count(text) >= count)

    def pids(self) -> list[int]:
        """Of all processes in its session."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if session_of(pid) == self.popen.pid]

    def cpu_of_threads(self) -> dict[int, int]:
        """Nanoseconds on a processor, by thread."""
        spent = {}
        for pid in self.pids():
            for thread in (pathlib.Path("/proc") / str(pid) / "task").iterdir():
                try:
                    spent[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
                except FileNotFoundError:
                    continue
        return spent

    def resident_bytes(self) -> int:
        pages = sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE")


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def listening_ports() -> set[int]:
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    columns = (line.split() for line in lines)
    return {int(column[1].rpartition(":")[2], 16) for column in columns if column[3] == "0A"}
