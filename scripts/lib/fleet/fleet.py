"""The whole fleet in one folder: engines first, then the orchestrator, which starts the rest."""

import socket

from clients import query
from engines import ETCD_PORT, MEMBERS, NAME, PEER_PORT, PROMETHEUS, RESOLVERS, CoreDns, Etcd, Prometheus, fetch
from members import LISTENER_PORT, METRICS_PORT, Backends, Balancers
from orchestrator import BACKENDS, BALANCERS, Orchestrator
from processes import Failure, Processes, until


def expect_free():
    """Fails where another program uses an address: its answers would be taken for those of the fleet."""
    host, port = PROMETHEUS.split(":")
    wanted = [(host, int(port)), *RESOLVERS.values()]
    wanted += [(f"127.0.2.{member}", port) for member in MEMBERS for port in (ETCD_PORT, PEER_PORT)]
    wanted += [(Balancers.address(n), port) for n in range(1, BALANCERS[2] + 1) for port in (LISTENER_PORT, METRICS_PORT)]
    wanted += [("127.0.0.1", Backends.port(n)) for n in range(1, BACKENDS[2] + 1)]
    for address in wanted:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(address)
            except OSError as error:
                raise Failure(f"{address[0]}:{address[1]} is not free: {error.strerror}") from error


class Fleet:
    def __init__(self, folder, l4lb, coredns, say, tested=False):
        self.processes = Processes(folder, apart=tested)
        self.say = say
        self.etcd = Etcd(self.processes)
        self.dns = CoreDns(self.processes, coredns)
        self.prometheus = Prometheus(self.processes, at_once=tested)
        self.balancers = Balancers(self.processes, l4lb)
        self.backends = Backends(self.processes, l4lb)
        self.orchestrator = Orchestrator(self.balancers, self.backends, self.prometheus, say)

    def start(self):
        expect_free()
        self.prometheus.write_files()
        self.prometheus.follow([])
        for member in MEMBERS:
            self.etcd.start(member)
        self.prometheus.start()
        until(60, "etcd takes a key", self.etcd.takes_keys)
        for name in RESOLVERS:
            self.dns.start(name)
        until(60, "Prometheus is ready", self.is_scraping)
        self.orchestrator.start()
        self.await_all()

    def await_all(self, seconds=60):
        """Until each wanted balancer is in DNS and has each wanted backend."""
        until(seconds, "each balancer has each backend", self.all_have_all)
        return until(seconds, "DNS has each balancer", lambda: self.in_dns() == self.wanted_addresses())

    def wanted_addresses(self):
        return sorted(self.balancers.address(n) for n in self.numbers(self.orchestrator.balancers))

    @staticmethod
    def numbers(kind):
        return [n for n in range(1, kind.count + 1) if n not in kind.held]

    def all_have_all(self):
        names = {self.backends.name(n) for n in self.numbers(self.orchestrator.backends)}
        return all(self.balancers.eligible(n) == names for n in self.numbers(self.orchestrator.balancers))

    @staticmethod
    def in_dns(name="dns1"):
        """What that CoreDNS answers; None where it does not."""
        try:
            return query(NAME, RESOLVERS[name])[0]
        except OSError:
            return None

    @staticmethod
    def is_scraping():
        try:
            return fetch(PROMETHEUS, "/api/v1/query?query=up")["status"] == "success"
        except OSError:
            return False

    def expect_running(self):
        for name, process in self.processes.running.items():
            if process.poll() not in (None, 0):
                raise Failure(f"{name} has ended with {process.returncode}: {self.processes.last_words(name)}")

    def stop(self):
        if self.orchestrator.thread.is_alive():
            self.orchestrator.stop()
        self.processes.kill_all()
