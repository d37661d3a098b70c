"""The loads: how each is put on, what it must give to count, and its figures.

A proxy is started anew for each measurement, so that none inherits what another load has left in it.
"""

import contextlib
import http.client
import json
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from . import backends
from .backends import PEERS, SMALL, WebServer, backend_addresses
from .meter import Meter, Usage
from .process import START_SECONDS_MAX, BenchError, Process
from .proxies import SERVER_NAME, Proxy, Service
from .results import Figures

DIRECT = "direct"
LUA = pathlib.Path(__file__).resolve().parent / "percentiles.lua"
BACKENDS = 3
# What a client may wait for one response; more is counted as a timeout.
RESPONSE_SECONDS_MAX = 5
# Up to here each connection has to get to a backend; more may take longer than a short load, on a busy machine.
WATCHED_CONNECTIONS_MAX = 64
# How much longer than its load a client may take.
GRACE_SECONDS = 20
# What a stream may have under way when the test ends: four socket buffers of the kernel's largest sizes and a pipe.
IN_FLIGHT_MAX = 64 << 20
QUICK_STREAM_BYTES = 32 << 20
# Beside bulk streams the small requests come first on the processor of the load: the proxy is measured, not that queue.
BULK_NICE = 19
# Thousands of sessions are opened and asked.
HOLD_SECONDS_MAX = 60
MIXED_STREAMS = 8
MIXED_CONNECTIONS = 16


@dataclass(frozen=True)
class Bench:
    """What the loads of one mode have in common."""

    work: pathlib.Path
    load_cpus: set[int]
    proxy_cpus: set[int]
    workers: int
    seconds: int
    quick: bool
    web: WebServer
    # Two for each proxy, by its name.
    ports: dict[str, list[int]]
    bulk_port: int
    echo_port: int

    def web_service(
        self, proxy: Proxy | None, count: int, header: bool = False, tls: bool = False, preread: bool = False
    ) -> Service:
        port = self.web.header_port if header else self.web.tls_port if tls else self.web.port
        return Service("web", self.port_of(proxy, 0), backend_addresses(count, port), header, preread)

    def bulk_service(self, proxy: Proxy | None) -> Service:
        return Service("bulk", self.port_of(proxy, 1), [f"127.0.0.1:{self.bulk_port}"])

    def echo_service(self, proxy: Proxy) -> Service:
        return Service("echo", self.port_of(proxy, 0), [f"127.0.0.1:{self.echo_port}"])

    def port_of(self, proxy: Proxy | None, place: int) -> int:
        return self.ports[proxy.name][place] if proxy else 0

    @contextlib.contextmanager
    def spawned(self, proxy: Proxy, services: list[Service]) -> Iterator[Process]:
        home = self.work / proxy.name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        command = proxy.configure(home, services, self.workers)
        with Process(proxy.name, command, home, self.proxy_cpus) as process:
            yield process

    @contextlib.contextmanager
    def running(self, proxy: Proxy | None, services: list[Service]) -> Iterator[Process | None]:
        """The proxy while it listens; None without one. It must be there in the end."""
        if proxy is None:
            yield None
            return
        with self.spawned(proxy, services) as process:
            process.await_listening([service.port for service in services])
            yield process
            process.expect_running()


def address_of(proxy: Proxy | None, service: Service) -> str:
    return service.address if proxy else service.backends[0]


class Load(Protocol):
    name: str
    title: str
    # Of what the processor time is told: "request", "GB", or none.
    unit: str
    # None is every proxy, and none at all.
    proxies: frozenset[str] | None

    def seconds(self, bench_seconds: int) -> float:
        """About what one measurement takes."""

    def measure(self, bench: Bench, proxy: Proxy | None) -> Figures: ...


# Splicing makes no difference to what moves no bytes, and without a proxy there is nothing to measure.
WITHOUT_TWINS = frozenset(["l4lb", "haproxy", "nginx", "sozu"])


# Those that write and read what goes before the stream.
WITH_HEADERS = frozenset(["l4lb", "haproxy", "nginx"])


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WebLoad:
    """wrk: so many connections at a time, that stay or are closed after each response."""

    name: str
    title: str
    connections: int
    path: str = SMALL
    close: bool = False
    backends: int = BACKENDS
    proxies: frozenset[str] | None = None
    unit: str = "request"
    # The backends read a PROXY header first.
    header: bool = False
    # The requests come over TLS, which the backends end.
    tls: bool = False
    # The proxy reads the hello and routes by it.
    preread: bool = False

    def seconds(self, bench_seconds: int) -> float:
        return bench_seconds + 0.3

    def measure(self, bench: Bench, proxy: Proxy | None) -> Figures:
        service = bench.web_service(proxy, self.backends, self.header, self.tls, self.preread)
        with bench.running(proxy, [service]) as process:
            client = Wrk(bench, address_of(proxy, service), self.connections, self.path, self.close, self.tls)
            with Meter(process, [bench.web.process]) as meter, client.started() as started:
                told = client.result(started)
        return web_figures(told, meter.usage)


class Wrk:
    def __init__(
        self, bench: Bench, address: str, connections: int, path: str, close: bool, tls: bool = False
    ) -> None:
        self.bench = bench
        self.connections = connections
        self.response_bytes = bench.web.response_bytes(address, path, close, tls)
        self.command = ["wrk", "--threads", str(min(bench.workers, connections)), "--connections", str(connections)]
        self.command += ["--duration", f"{bench.seconds}s", "--timeout", f"{RESPONSE_SECONDS_MAX}s"]
        self.command += ["--script", str(LUA)]
        self.command += ["--header", "Connection: close"] if close else []
        if tls:
            address = address.replace("127.0.0.1", SERVER_NAME)
        self.command += [f"http{'s' if tls else ''}://{address}{path}"]
        self.is_watched = not close and connections <= WATCHED_CONNECTIONS_MAX

    def started(self) -> Process:
        return Process("wrk", self.command, self.bench.work, self.bench.load_cpus)

    def result(self, process: Process) -> dict:
        if self.is_watched:
            # wrk says nothing of a connection that never gets an answer.
            process.await_that(
                f"has {self.connections} connections to the backends",
                RESPONSE_SECONDS_MAX,
                lambda: self.bench.web.connections() >= self.connections,
                look_again_after=0.02,
            )
        told = json.loads(process.wait(self.bench.seconds + GRACE_SECONDS).splitlines()[-1])
        errors = {kind: count for kind, count in told["errors"].items() if count}
        if errors:
            raise BenchError(f"wrk: errors {errors} in {told['requests']} requests")
        if told["requests"] == 0:
            raise BenchError("wrk: no request was answered")
        whole = told["requests"] * self.response_bytes
        # Each connection may be in the middle of a response when the time is over.
        most = whole + self.connections * self.response_bytes
        if not whole <= told["bytes"] <= most:
            raise BenchError(f"wrk: {told['requests']} responses had {told['bytes']} bytes, not {whole} to {most}")
        return told


def web_figures(told: dict, usage: Usage) -> Figures:
    return Figures(
        rate=told["requests"] / told["microseconds"] * 1e6,
        p50=told["p50"] / 1e3,
        p99=told["p99"] / 1e3,
        elapsed=usage.elapsed,
        requests=told["requests"],
        bytes=told["bytes"],
        **cpu_figures(usage, told["requests"] / 1e6),
    )


def cpu_figures(usage: Usage, units: float) -> dict[str, float | None]:
    return {
        "proxy_cpu": None if usage.proxy is None else usage.proxy / units,
        "processes_cpu": usage.processes / units,
        "machine_cpu": usage.machine / units,
    }


# --- streams ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BulkLoad:
    """iperf3: so many streams to the backend, or from it."""

    name: str
    title: str
    streams: int
    reverse: bool
    proxies: frozenset[str] | None = None
    unit: str = "GB"

    def seconds(self, bench_seconds: int) -> float:
        return bench_seconds + 0.5

    def measure(self, bench: Bench, proxy: Proxy | None) -> Figures:
        service = bench.bulk_service(proxy)
        with (
            bench.running(proxy, [service]) as process,
            backends.iperf_server(bench.work, bench.load_cpus, bench.bulk_port) as server,
        ):
            amount = ["--time", str(bench.seconds)]
            if bench.quick:
                amount = ["--bytes", str(self.streams * QUICK_STREAM_BYTES)]
            client = Iperf(bench, address_of(proxy, service), self.streams, self.reverse, amount)
            with Meter(process, []) as meter, client.started() as started:
                end = client.result(started)["end"]
                server.wait(GRACE_SECONDS)
        received = end["sum_received"]
        return Figures(
            rate=received["bits_per_second"] / 1e9,
            elapsed=meter.usage.elapsed,
            bytes=received["bytes"],
            # Milliseconds a GB.
            **cpu_figures(meter.usage, received["bytes"] / 1e12),
        )


class Iperf:
    def __init__(
        self, bench: Bench, address: str, streams: int, reverse: bool, amount: list[str], nice: int = 0
    ) -> None:
        self.bench = bench
        self.streams = streams
        self.nice = nice
        host, port = address.split(":")
        self.command = ["iperf3", "--client", host, "--port", port, "--parallel", str(streams), "--json", *amount]
        self.command += ["--reverse"] if reverse else []

    def started(self) -> Process:
        return Process("iperf3", self.command, self.bench.work, self.bench.load_cpus, self.nice)

    def result(self, process: Process) -> dict:
        report = json.loads(process.wait(self.bench.seconds + GRACE_SECONDS))
        if "error" in report:
            raise BenchError(f"iperf3: {report['error']}")
        streams = report["end"]["streams"]
        if len(streams) != self.streams:
            raise BenchError(f"iperf3: {len(streams)} streams, not {self.streams}")
        if not all(stream[end]["bytes"] > 0 for stream in streams for end in ["sender", "receiver"]):
            raise BenchError("iperf3: a stream moved nothing")
        # Not by stream: two workers may connect them in another order, and iperf3 numbers each end by itself.
        sent, received = report["end"]["sum_sent"]["bytes"], report["end"]["sum_received"]["bytes"]
        if not received <= sent <= received + self.streams * IN_FLIGHT_MAX:
            raise BenchError(f"iperf3: {sent} bytes were sent and {received} received")
        return report


@dataclass(frozen=True)
class MixedLoad:
    """Small requests through one listener while streams fill another one of the same proxy."""

    name: str
    title: str
    proxies: frozenset[str] | None = None
    unit: str = "GB"

    def seconds(self, bench_seconds: int) -> float:
        return bench_seconds + 2

    def measure(self, bench: Bench, proxy: Proxy | None) -> Figures:
        web, bulk = bench.web_service(proxy, BACKENDS), bench.bulk_service(proxy)
        with (
            bench.running(proxy, [web, bulk]) as process,
            backends.iperf_server(bench.work, bench.load_cpus, bench.bulk_port, BULK_NICE) as server,
        ):
            small = Wrk(bench, address_of(proxy, web), MIXED_CONNECTIONS, SMALL, close=False)
            # The streams begin first and end last.
            amount = ["--time", str(bench.seconds + 1)]
            streams = Iperf(bench, address_of(proxy, bulk), MIXED_STREAMS, True, amount, BULK_NICE)
            with Meter(process, [bench.web.process]) as meter, streams.started() as bulk_client:
                server.await_line("connected to", count=MIXED_STREAMS)
                with small.started() as small_client:
                    told = small.result(small_client)
                report = streams.result(bulk_client)
                server.wait(GRACE_SECONDS)
        beside = [interval["sum"] for interval in report["intervals"][: bench.seconds]]
        moved = report["end"]["sum_received"]["bytes"]
        return Figures(
            rate=told["requests"] / told["microseconds"] * 1e6,
            p50=told["p50"] / 1e3,
            p99=told["p99"] / 1e3,
            bulk=8 * sum(part["bytes"] for part in beside) / sum(part["seconds"] for part in beside) / 1e9,
            elapsed=meter.usage.elapsed,
            requests=told["requests"],
            bytes=moved,
            **cpu_figures(meter.usage, moved / 1e12),
        )


# --- idle sessions, and the start -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdleLoad:
    """What a session adds to the memory of the proxy while it waits, each having moved a few bytes."""

    name: str
    title: str
    sessions: int = 5000
    sessions_quick: int = 500
    # The first sessions pay for what the process needs once.
    sessions_before: int = 100
    proxies: frozenset[str] | None = WITHOUT_TWINS
    unit: str = ""

    def seconds(self, _: int) -> float:
        return 5

    def measure(self, bench: Bench, proxy: Proxy | None) -> Figures:
        sessions = self.sessions_quick if bench.quick else self.sessions
        service = bench.echo_service(proxy)
        with (
            backends.echo_server(bench.work, bench.load_cpus, bench.echo_port),
            bench.running(proxy, [service]) as process,
            Holder(bench, "first-clients", service.address, self.sessions_before).started() as first,
        ):
            hold(first, self.sessions_before)
            before = process.resident_bytes()
            with Holder(bench, "clients", service.address, sessions).started() as clients:
                hold(clients, sessions)
                after = process.resident_bytes()
                told = ask(clients, "ping")
                if told["pong"] != str(sessions):
                    raise BenchError(f"of {sessions} idle sessions {told['pong']} answered")
        return Figures(memory=(after - before) / sessions)


class Holder:
    def __init__(self, bench: Bench, name: str, address: str, count: int) -> None:
        self.bench = bench
        self.name = name
        self.command = [sys.executable, str(PEERS), "hold", address, str(count), "--at-once", "200"]

    def started(self) -> Process:
        return Process(self.name, self.command, self.bench.work, self.bench.load_cpus)


def hold(clients: Process, count: int) -> None:
    told = ask(clients, "settle")
    if told["held"] != str(count):
        raise BenchError(f"{told['held']} sessions of {count} are open; errors: {told['errors']}")


def ask(clients: Process, command: str) -> dict[str, str]:
    """What `peers hold` answers; each command is asked once, and is its own identity."""
    clients.tell(f"{command} {command}")
    clients.await_that(f"answers {command}", HOLD_SECONDS_MAX, lambda: answer_to(clients, command) is not None)
    return dict(word.split("=", 1) for word in answer_to(clients, command).split())


def answer_to(clients: Process, command: str) -> str | None:
    found = re.search(rf"^{command} (.*)\n", clients.out.read_text(), re.MULTILINE)
    return found[1] if found else None


@dataclass(frozen=True)
class StartLoad:
    """From the start of the program to its first response. Not a load, but measured like one."""

    name: str
    title: str
    backends: int
    proxies: frozenset[str] | None = WITHOUT_TWINS
    unit: str = ""

    def seconds(self, _: int) -> float:
        return 1

    def measure(self, bench: Bench, proxy: Proxy | None) -> Figures:
        service = bench.web_service(proxy, self.backends)

        def answers() -> bool:
            try:
                bench.web.response_bytes(service.address, SMALL, close=True)
            except (OSError, http.client.HTTPException):
                return False
            return True

        with bench.spawned(proxy, [service]) as process:
            # The configuration was written by now.
            began = time.monotonic()
            process.await_that("answers", START_SECONDS_MAX, answers)
            return Figures(start=time.monotonic() - began, memory=process.resident_bytes())


# --- the list ---------------------------------------------------------------------------------------------------------


def all_loads() -> list[Load]:
    return [
        WebLoad("keepalive-1", "keep-alive, 1 connection", 1),
        WebLoad("keepalive-64", "keep-alive, 64 connections", 64),
        WebLoad("keepalive-1000", "keep-alive, 1000 connections", 1000),
        WebLoad("short", "a connection a request, 64 at a time", 64, close=True),
        WebLoad(
            "short-header",
            "a connection a request, 64 at a time, with a PROXY header",
            64,
            close=True,
            proxies=WITH_HEADERS,
            header=True,
        ),
        WebLoad(
            "short-tls",
            "a connection of TLS a request, 64 at a time",
            64,
            close=True,
            proxies=WITH_HEADERS,
            tls=True,
        ),
        WebLoad(
            "short-sni",
            "a connection of TLS a request, 64 at a time, by server name",
            64,
            close=True,
            proxies=WITH_HEADERS,
            tls=True,
            preread=True,
        ),
        WebLoad("response-64k", "responses of 64 KiB, 64 connections", 64, path="/64k"),
        WebLoad("response-1m", "responses of 1 MiB, 16 connections", 16, path="/1m"),
        BulkLoad("bulk-1-up", "1 stream to the backend", 1, reverse=False),
        BulkLoad("bulk-8-up", "8 streams to the backend", 8, reverse=False),
        BulkLoad("bulk-1-down", "1 stream from the backend", 1, reverse=True),
        BulkLoad("bulk-8-down", "8 streams from the backend", 8, reverse=True),
        MixedLoad("mixed", f"small requests, {MIXED_CONNECTIONS} connections, beside {MIXED_STREAMS} streams"),
        *(
            WebLoad(
                f"connect-{count}",
                f"a connection a request, {count:,} backend{'s' if count > 1 else ''}",
                64,
                close=True,
                backends=count,
                proxies=WITHOUT_TWINS,
            )
            for count in [1, 3, 100, 10_000]
        ),
        StartLoad("start-10000", "start with 10,000 backends, until the first response", 10_000),
        IdleLoad("idle", "5,000 idle sessions"),
    ]


# One of each kind: what there is time for in the second mode, and with the peers in a quick run.
CORE_LOADS = ["keepalive-64", "keepalive-1000", "short", "response-1m", "bulk-8-up", "bulk-8-down", "mixed"]
# These try a configuration of their own.
QUICK_PEER_LOADS = [*CORE_LOADS, "connect-10000", "start-10000", "idle"]
