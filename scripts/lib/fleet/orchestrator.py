"""A small orchestrator: reads Prometheus, and starts and stops balancers and backends. It restarts those that died.

To remove a balancer it sends SIGTERM: the process leaves DNS, accepts for `shutdown_delay`, and ends with its last session.
To remove a backend it ends its registration, waits until it has no session any more, and stops it then."""

import math
import threading
import time

from members import METRICS_PORT, sessions_of_port

SESSIONS = "sum(l4lb_active_sessions)"
# Sessions for which one more is started, and how many there are at least and at most.
BALANCERS = (20, 3, 5)
BACKENDS = (15, 4, 8)
STEP_SECONDS = 0.5
# Fewer are wanted for so long before one is removed: a load that falls may rise again.
CALM_SECONDS = 5
# A backend without a registration may be dialed by a balancer that does not know it yet.
LEAVE_SECONDS = 2


def wanted(sessions, each):
    per, least, most = each
    return max(least, min(most, math.ceil(sessions / per)))


class Kind:
    """Balancers or backends: how many there are to be, which are held down by a test, which are leaving."""

    def __init__(self, members, each):
        self.members, self.each = members, each
        self.count, self.held, self.leaving = each[1], set(), {}
        self.fewer_since = None

    def running(self):
        return [n for n in range(1, self.each[2] + 1) if self.members.is_running(n)]

    def scale(self, sessions, now):
        """Returns a line about a change."""
        wants = wanted(sessions, self.each)
        if wants >= self.count:
            self.fewer_since = None
        elif self.fewer_since is None:
            self.fewer_since = now
        if wants > self.count or (self.fewer_since is not None and now - self.fewer_since >= CALM_SECONDS):
            before, self.count, self.fewer_since = self.count, wants, None
            return f"{sessions:.0f} sessions: {before} -> {wants}"
        return None

    def start_missing(self):
        for number in range(1, self.count + 1):
            if number not in self.held and number not in self.leaving and not self.members.is_running(number):
                yield number


class Orchestrator:
    def __init__(self, balancers, backends, prometheus, say):
        self.prometheus, self.say = prometheus, say
        self.balancers, self.backends = Kind(balancers, BALANCERS), Kind(backends, BACKENDS)
        # Held while processes are started and stopped, also by tests.
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def start(self):
        self.thread.start()

    def stop(self):
        self.over.set()
        self.thread.join()

    def run(self):
        # The kernel ends what a thread has started along with that thread: it must outlast them.
        while not self.over.is_set():
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 it must go on, and say so
                self.say(f"orchestrator: {error!r}")
            self.over.wait(STEP_SECONDS)

    def step(self):
        sessions, now = self.prometheus.value(SESSIONS), time.monotonic()
        with self.lock:
            # Without Prometheus, as many as there are.
            if sessions is not None:
                for what, kind in (("balancers", self.balancers), ("backends", self.backends)):
                    change = kind.scale(sessions, now)
                    if change:
                        self.say(f"orchestrator: {what}, {change}")
            self.remove_balancers()
            self.remove_backends(now)
            for kind in (self.backends, self.balancers):
                for number in kind.start_missing():
                    self.say(f"orchestrator: starts {kind.members.name(number)}")
                    kind.members.start(number)
            self.prometheus.follow(
                f"{self.balancers.members.address(n)}:{METRICS_PORT}"
                for n in set(range(1, self.balancers.count + 1)) | set(self.balancers.leaving))

    def remove_balancers(self):
        kind = self.balancers
        for number in kind.running():
            if number > kind.count and number not in kind.leaving:
                self.say(f"orchestrator: stops {kind.members.name(number)}")
                kind.members.stop(number)
                kind.leaving[number] = True
        for number in [n for n in kind.leaving if not kind.members.is_running(n)]:
            self.say(f"orchestrator: {kind.members.name(number)} has ended")
            del kind.leaving[number]

    def remove_backends(self, now):
        kind = self.backends
        for number in kind.running():
            if number > kind.count and number not in kind.leaving:
                self.say(f"orchestrator: deregisters {kind.members.name(number)}")
                kind.members.deregister(number)
                kind.leaving[number] = now
        for number, since in list(kind.leaving.items()):
            if number <= kind.count:
                # Wanted again: its sessions never noticed.
                del kind.leaving[number]
            elif now - since > LEAVE_SECONDS and sessions_of_port(kind.members.port(number)) == 0:
                self.say(f"orchestrator: stops {kind.members.name(number)}, which has no session")
                kind.members.kill(number)
                del kind.leaving[number]

    # For tests.

    def hold(self, kind, number):
        """Does not start that one again."""
        with self.lock:
            kind.held.add(number)

    def release(self, kind, number):
        with self.lock:
            kind.held.discard(number)
