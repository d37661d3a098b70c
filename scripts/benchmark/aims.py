"""What l4lb has to reach, by load: limits on its figures against those of others, or as such."""

from dataclasses import dataclass

from .loads import DIRECT
from .proxies import L4LB, PEERS
from .results import Results

BEST_PEER = "best peer"
# Of these figures more is better; of all others less is.
MORE_IS_BETTER = frozenset(["rate", "bulk"])

BULK = ["bulk-1-up", "bulk-8-up", "bulk-1-down", "bulk-8-down"]
KEEPALIVE = ["keepalive-1", "keepalive-64", "keepalive-1000"]


@dataclass(frozen=True)
class Aim:
    loads: list[str]
    figure: str
    what: str
    limit: float
    # A proxy, the best peer, or another load of l4lb; None is a limit in the unit of the figure.
    against: str | None
    unit: str = "x"


AIMS = [
    Aim(BULK, "proxy_cpu", "CPU/GB", 0.40, "haproxy"),
    Aim(BULK, "proxy_cpu", "CPU/GB", 0.75, "haproxy-splice"),
    Aim(BULK, "proxy_cpu", "CPU/GB", 0.45, "nginx"),
    Aim(BULK, "rate", "Gbit/s", 1.4, "haproxy"),
    Aim(BULK, "rate", "Gbit/s", 1.2, BEST_PEER),
    Aim(BULK, "machine_cpu", "CPU/GB of the machine", 2.0, DIRECT),
    Aim(["response-1m"], "rate", "responses/s", 2.0, "haproxy"),
    Aim(["response-1m"], "proxy_cpu", "CPU/response", 0.35, "haproxy"),
    Aim(["keepalive-64", "keepalive-1000"], "rate", "requests/s", 1.0, BEST_PEER),
    Aim(["keepalive-64", "keepalive-1000"], "proxy_cpu", "CPU/request", 0.95, BEST_PEER),
    Aim(["keepalive-64", "keepalive-1000"], "p99", "p99", 1.0, BEST_PEER),
    Aim(KEEPALIVE, "machine_cpu", "CPU/request of the machine", 2.0, DIRECT),
    Aim(["short"], "rate", "connections/s", 1.05, BEST_PEER),
    Aim(["short"], "proxy_cpu", "CPU/connection", 0.95, BEST_PEER),
    Aim(["short-header"], "proxy_cpu", "CPU/connection", 1.03, "short"),
    Aim(["short-sni"], "proxy_cpu", "CPU/connection", 1.10, "short-tls"),
    Aim(["mixed"], "p99", "p99 of the small requests", 0.5, BEST_PEER),
    Aim(["mixed"], "bulk", "Gbit/s beside them", 1.0, BEST_PEER),
    Aim(["idle"], "memory", "bytes a session", 1024, None, "bytes"),
    Aim(["connect-10000"], "proxy_cpu", "CPU/connection", 1.05, "connect-3"),
    Aim(["start-10000"], "start", "time to the first response", 1.0, None, "s"),
]


@dataclass(frozen=True)
class Verdict:
    load: str
    aim: Aim
    measured: float
    # Which peer was the best one.
    peer: str | None

    @property
    def is_reached(self) -> bool:
        if self.aim.figure in MORE_IS_BETTER:
            return self.measured >= self.aim.limit
        return self.measured <= self.aim.limit


def verdicts(results: Results, mode: str) -> list[Verdict]:
    """One for each aim and load that was measured with all it takes."""
    found = []
    for aim in AIMS:
        for load in aim.loads:
            measured = results.median(mode, load, L4LB, aim.figure)
            reference, peer = reference_of(results, mode, load, aim)
            if measured is not None and reference:
                found.append(Verdict(load, aim, measured / reference, peer))
    return sorted(found, key=lambda verdict: results.loads(mode).index(verdict.load))


def reference_of(results: Results, mode: str, load: str, aim: Aim) -> tuple[float | None, str | None]:
    if aim.against is None:
        return 1.0, None
    if aim.against == BEST_PEER:
        return best_peer(results, mode, load, aim.figure)
    if aim.against in results.loads(mode):
        return results.median(mode, aim.against, L4LB, aim.figure), None
    return results.median(mode, load, aim.against, aim.figure), None


def best_peer(results: Results, mode: str, load: str, figure: str) -> tuple[float | None, str | None]:
    """Its figure and its name."""
    told = [(value, peer) for peer in PEERS if (value := results.median(mode, load, peer, figure)) is not None]
    if not told:
        return None, None
    return max(told) if figure in MORE_IS_BETTER else min(told)
