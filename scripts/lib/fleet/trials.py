"""What the fleet must survive, under load. What decides is that no request fails, that DNS answers and that everything is
as before in the end; durations are printed beside what they should be, with bounds that a busy machine keeps."""

import socket
import subprocess
import time

from clients import Load, Sessions
from engines import MEMBERS, RESOLVERS
from members import BACKEND_PORTS, BACKLOG, CHECK_SECONDS, LEASE_SECONDS, LISTENER_PORT, Admin
from processes import Failure, until

# Added to what something should take, before it counts as a fault.
SLACK_SECONDS = 10
ETCD_AWAY_SECONDS = 60
PARTITION_SECONDS = 20
REGISTRATIONS = 10
FEW_SESSIONS, MANY_SESSIONS = 30, 90
SCALE_SECONDS = 10


class Trials:
    def __init__(self, fleet, say):
        self.fleet, self.say = fleet, say
        self.load = Load(LISTENER_PORT)
        self.figures = []
        self.requests = 0
        self.unanswered = 0

    # --- judging ---------------------------------------------------------------------------------------------------

    def expect_served(self, what, first_may_fail=False):
        """No request of the load has failed since the last call, and each name was resolved. Where a balancer was killed, one
        that tries the next address must have been served."""
        requests, first, failed, reasons = self.load.since()
        unanswered, self.load.resolver.unanswered = self.load.resolver.unanswered, 0
        if requests == 0:
            raise Failure(f"{what}: the load has made no request")
        if failed or unanswered or (first and not first_may_fail):
            raise Failure(f"{what}: of {requests} requests {failed} failed, {first} at their first balancer, and "
                          f"{unanswered} times no CoreDNS answered: {'; '.join(reasons)}")
        self.requests += requests
        tried = f", {first} went to the next balancer" if first else ""
        self.say(f"{what}: ok, {requests} requests, 0 failed{tried}")

    def took(self, what, seconds, aim, digits=1):
        """Fails long after the aim only: this machine may be busy."""
        if seconds > aim + SLACK_SECONDS:
            raise Failure(f"{what} took {seconds:.1f} s, aim {aim} s")
        # A tenth is what the steps of looking cost.
        late = "" if seconds <= aim + 0.1 else ", LATE"
        unit = f"{seconds * 1000:.0f} ms (aim {aim * 1000:.0f})" if aim < 0.5 else f"{seconds:.{digits}f} s (aim {aim:g})"
        self.say(f"    {what}: {unit}{late}")
        self.figures.append(f"{what} {unit}{late}")

    # --- balancers -------------------------------------------------------------------------------------------------

    def stop_balancer(self, number=1):
        """One that is stopped leaves DNS first: no client notices, and it comes back."""
        fleet, kind = self.fleet, self.fleet.orchestrator.balancers
        fleet.orchestrator.hold(kind, number)
        fleet.balancers.stop(number)
        self.took("stopped balancer out of DNS", self.await_out(number), 1)
        code = fleet.processes.ended(fleet.balancers.name(number), 60)
        if code != 0:
            raise Failure(f"a stopped balancer ended with {code}")
        # No client has asked the other one for a while, unless this machine is too busy to answer in time.
        address = fleet.balancers.address(number)
        is_stale = address in (fleet.in_dns("dns2") or [])
        self.say(f"    the first answer of a CoreDNS after a pause: {'as it was before the pause, LATE' if is_stale else 'as it is now'}")
        until(30, f"dns2 answers without {address}", lambda: address not in (fleet.in_dns("dns2") or [address]))
        self.come_back(number)
        self.expect_served("a balancer was stopped and started")

    def kill_balancer(self, number=2):
        fleet, kind = self.fleet, self.fleet.orchestrator.balancers
        fleet.orchestrator.hold(kind, number)
        fleet.processes.kill(fleet.balancers.name(number))
        self.took("killed balancer out of DNS", self.await_out(number), LEASE_SECONDS + 1)
        self.come_back(number)
        self.expect_served("a balancer was killed and started", first_may_fail=True)

    def await_out(self, number):
        address = self.fleet.balancers.address(number)
        return until(LEASE_SECONDS + 60, f"{address} has left DNS", lambda: address not in (self.fleet.in_dns() or [address]))

    def come_back(self, number):
        self.fleet.orchestrator.release(self.fleet.orchestrator.balancers, number)
        self.fleet.await_all()

    def know_each_other(self):
        """Each balancer knows all of them, their one configuration, and all backends as up."""
        fleet = self.fleet
        names = [fleet.balancers.name(number) for number in fleet.numbers(fleet.orchestrator.balancers)]
        backends = len(fleet.numbers(fleet.orchestrator.backends))

        def all_known():
            for number in fleet.numbers(fleet.orchestrator.balancers):
                try:
                    known = fleet.balancers.fleet(number)
                except OSError:
                    return False
                if [row["name"] for row in known["balancers"]] != names or known["disagreements"] or known["failing"]:
                    return False
                if any(row["differs"] or row["pools"]["web"]["up"] != backends for row in known["balancers"]):
                    return False
            return True

        until(60, "each balancer knows all of them", all_known, every=0.1)
        self.say(f"    each balancer knows {', '.join(names)}, and that they agree")

    def change_one(self, number=2):
        """One balancer is started with another configuration, by mistake."""
        fleet, kind = self.fleet, self.fleet.orchestrator.balancers
        for backlog in (BACKLOG // 2, BACKLOG):
            fleet.orchestrator.hold(kind, number)
            fleet.balancers.backlogs[number] = backlog
            fleet.balancers.stop(number)
            fleet.processes.ended(fleet.balancers.name(number), 60)
            self.come_back(number)
            if backlog == BACKLOG:
                self.over("L4lbConfigsDiffer")
            else:
                self.await_alert("L4lbConfigsDiffer")
        self.know_each_other()
        self.expect_served("a balancer had another configuration")

    # --- backends --------------------------------------------------------------------------------------------------

    def register(self):
        """A key is put once; each balancer is asked as quickly as it answers."""
        numbers = self.fleet.numbers(self.fleet.orchestrator.balancers)
        admins = [Admin(self.fleet.balancers.socket(number)) for number in numbers]

        def on_all(name):
            return all(any(row["name"] == name and row["eligible"] for row in admin.read("/v1/backends")) for admin in admins)

        took = []
        for turn in range(REGISTRATIONS):
            # A second name of one address would be left out: this server is one more that listens.
            name, port = f"t{turn}", BACKEND_PORTS + 50 + turn
            self.fleet.processes.start(name, [self.fleet.backends.l4lb, "backend", "--port", port])
            until(10, f"{name} listens", lambda port=port: answers(port))
            began = time.monotonic()
            self.fleet.etcd.put(f"/l4lb/web/{name}", f'{{"address": "127.0.0.1:{port}"}}')
            until(30, f"{name} is eligible on all balancers", lambda name=name: on_all(name), every=0)
            took.append(time.monotonic() - began)
            self.fleet.etcd.delete(f"/l4lb/web/{name}")
        for admin in admins:
            admin.close()
        self.fleet.await_all()
        for turn in range(REGISTRATIONS):
            self.fleet.processes.kill(f"t{turn}")
        took.sort()
        self.say(f"    registrations: {' '.join(f'{seconds * 1000:.0f}' for seconds in took)} ms")
        self.took("backend eligible on all, median", took[len(took) // 2], 0.05)
        self.expect_served("backends were registered and removed")

    def lose_backends(self, dead=4, silent=3):
        """The server of one fails together with the program that registers it: its checks take it out. Of another one only the
        program dies: its lease takes it out."""
        fleet, kind = self.fleet, self.fleet.orchestrator.backends
        for number in (dead, silent):
            fleet.orchestrator.hold(kind, number)
        began = time.monotonic()
        fleet.backends.kill(dead)
        fleet.backends.kill_registration(silent)
        first, last = self.await_ineligible(fleet.backends.name(dead))
        self.took("lost backend out on all", last - began, LEASE_SECONDS + 0.5)
        self.took("on the last balancer after the first", last - first, CHECK_SECONDS)
        _, last = self.await_ineligible(fleet.backends.name(silent))
        self.took("backend of a dead registration out on all", last - began, LEASE_SECONDS + 0.5)
        for number in (dead, silent):
            fleet.orchestrator.release(kind, number)
        fleet.await_all()
        self.expect_served("two backends were lost and came back")

    def await_ineligible(self, name):
        """When the first and the last balancer no longer use that backend."""
        numbers, found = self.fleet.numbers(self.fleet.orchestrator.balancers), {}

        def gone():
            for number in numbers:
                if number not in found and name not in self.fleet.balancers.eligible(number):
                    found[number] = time.monotonic()
            return len(found) == len(numbers)

        until(LEASE_SECONDS + 60, f"{name} is out on all balancers", gone, every=0.005)
        return min(found.values()), max(found.values())

    # --- engines ---------------------------------------------------------------------------------------------------

    def kill_leader(self):
        etcd = self.fleet.etcd
        leader = etcd.leader()
        others = tuple(member for member in MEMBERS if member != leader)
        began = time.monotonic()
        self.fleet.processes.kill(f"etcd{leader}")
        until(60, "etcd takes a key without its leader", lambda: etcd.takes_keys(others))
        self.took("etcd takes keys after its leader was killed", time.monotonic() - began, 4)
        self.await_alert("EtcdMemberDown")
        etcd.start(leader)
        until(60, "the member is back", lambda: etcd.takes_keys((leader,)))
        self.fleet.await_all()
        self.over("EtcdMemberDown")
        self.expect_served("the leader of etcd was killed")

    def kill_coredns(self):
        for name in RESOLVERS:
            self.fleet.processes.kill(name)
            other = next(other for other in RESOLVERS if other != name)
            self.await_alert("CoreDnsDown")
            if self.fleet.in_dns(other) is None:
                raise Failure(f"{other} does not answer without {name}")
            self.fleet.dns.start(name)
            until(30, f"{name} answers", lambda name=name: self.fleet.in_dns(name) == self.fleet.wanted_addresses())
            self.over("CoreDnsDown")
        self.expect_served("each CoreDNS was killed")

    def kill_prometheus(self):
        self.fleet.processes.kill("prometheus")
        time.sleep(2)
        self.fleet.prometheus.start()
        until(60, "Prometheus has scraped each balancer", lambda: self.fleet.prometheus.value('sum(up{job="l4lb"})') == 3)
        self.await_alert("FleetWatchdog")
        self.fleet.await_all()
        self.expect_served("Prometheus was killed")

    def await_alert(self, name):
        self.fleet.prometheus.await_alert(name)
        self.say(f"    alert {name} fires")

    def over(self, name):
        self.fleet.prometheus.await_alert(name, fires=False, seconds=180)
        self.say(f"    alert {name} is over")

    # --- what takes longer -----------------------------------------------------------------------------------------

    def lose_etcd(self):
        fleet = self.fleet
        began = time.monotonic()
        for member in MEMBERS[:2]:
            fleet.processes.kill(f"etcd{member}")
        self.await_alert("EtcdNoLeader")
        fleet.processes.kill(f"etcd{MEMBERS[2]}")
        self.await_alert("L4lbAnnounceFailing")
        self.await_alert("L4lbDiscoveryFailing")
        self.await_alert("L4lbFleetFailing")
        self.await_alert("CoreDnsServesStale")
        while time.monotonic() < began + ETCD_AWAY_SECONDS:
            if not fleet.all_have_all():
                raise Failure("a balancer has lost its backends without etcd")
            for name in RESOLVERS:
                if fleet.in_dns(name) != fleet.wanted_addresses():
                    raise Failure(f"{name} answers {fleet.in_dns(name)} without etcd")
            time.sleep(1)
        back = time.monotonic()
        for member in MEMBERS:
            fleet.etcd.start(member)
        until(60, "etcd takes a key", fleet.etcd.takes_keys)
        fleet.await_all()
        for name in ("L4lbAnnounceFailing", "L4lbDiscoveryFailing", "L4lbFleetFailing", "CoreDnsServesStale", "EtcdMemberDown", "EtcdNoLeader"):
            self.over(name)
        self.say(f"    all is as before {time.monotonic() - back:.0f} s after etcd came back")
        self.expect_served(f"etcd was away for {ETCD_AWAY_SECONDS} s")

    def partition_member(self):
        """Nothing reaches one member and nothing comes from it: packets are dropped, so no connection notices."""
        fleet = self.fleet
        member = fleet.etcd.leader()
        others = tuple(other for other in MEMBERS if other != member)
        began = time.monotonic()
        drop(f"meta skuid {fleet.etcd.user(member)} drop", f"ip daddr 127.0.2.{member} drop")
        until(60, "etcd takes a key without it", lambda: fleet.etcd.takes_keys(others))
        self.took("etcd takes keys after a partition", time.monotonic() - began, 4)
        self.await_alert("EtcdMemberDown")
        while time.monotonic() < began + PARTITION_SECONDS:
            if not fleet.all_have_all():
                raise Failure("a balancer has lost its backends in a partition")
            time.sleep(0.5)
        pass_all()
        until(60, "the member is back", lambda: fleet.etcd.takes_keys((member,)))
        fleet.await_all()
        self.over("EtcdMemberDown")
        self.expect_served(f"member {member} of etcd was cut off for {PARTITION_SECONDS} s")

    def cut_balancer_off(self, number=3):
        """One balancer loses its link to the backends: the other ones keep theirs."""
        fleet = self.fleet
        others = [other for other in fleet.numbers(fleet.orchestrator.balancers) if other != number]
        names = fleet.balancers.eligible(others[0])
        last = BACKEND_PORTS + 99
        began = time.monotonic()
        drop(f"meta skuid {fleet.balancers.user(number)} ip daddr 127.0.0.1 tcp dport {BACKEND_PORTS}-{last} drop")
        address = fleet.balancers.address(number)

        def out():
            for other in others:
                if fleet.balancers.eligible(other) != names:
                    raise Failure(f"{fleet.balancers.name(other)} has lost backends that {fleet.balancers.name(number)} cannot reach")
            return address not in (fleet.in_dns() or [address])

        until(60, f"{address} has left DNS", out, every=0.1)
        self.took("balancer without a link out of DNS", time.monotonic() - began, 3 * CHECK_SECONDS + 3)
        alerts = ("L4lbPoolWithoutBackend", "L4lbBalancerCutOff", "L4lbBalancersDisagree")
        for name in alerts:
            self.await_alert(name)
        pass_all()
        fleet.await_all()
        for name in alerts:
            self.over(name)
        self.expect_served("a balancer had no link to the backends", first_may_fail=True)

    def scale(self):
        """Sessions come: balancers and backends are added. Some end: what is removed breaks none of the others."""
        fleet, orchestrator = self.fleet, self.fleet.orchestrator
        sessions = Sessions(LISTENER_PORT)
        try:
            began = time.monotonic()
            sessions.open_more(MANY_SESSIONS)
            until(30, "Prometheus has the sessions",
                  lambda: (fleet.prometheus.value("sum(l4lb_active_sessions)") or 0) >= MANY_SESSIONS)
            seen = time.monotonic()
            until(60, "the orchestrator wants more", lambda: orchestrator.balancers.count == 5 and orchestrator.backends.count >= 6)
            fleet.await_all()
            self.took("balancers and backends added after the metric", time.monotonic() - seen, SCALE_SECONDS)
            self.say(f"    {time.monotonic() - began:.1f} s after the first session: {orchestrator.balancers.count} balancers, "
                     f"{orchestrator.backends.count} backends")
            # Some of these go to the new ones, which are then removed under them.
            sessions.open_more(FEW_SESSIONS)
            on_new = sum(address in (fleet.balancers.address(4), fleet.balancers.address(5)) for address in sessions.addresses())
            if on_new == 0:
                raise Failure("no session went to a new balancer")
            sessions.close(MANY_SESSIONS)
            until(60, "the orchestrator wants fewer", lambda: orchestrator.balancers.count < 5 and orchestrator.backends.count < 6)
            until(60, "DNS has the balancers that stay", lambda: fleet.in_dns() == fleet.wanted_addresses())
            # Held beyond the time that a balancer accepts for.
            time.sleep(8)
            self.expect_unbroken(sessions, f"{len(sessions.addresses())} sessions, {on_new} of them through balancers that end")
            sessions.close(FEW_SESSIONS)
            until(60, "those that were removed have ended",
                  lambda: not any(fleet.balancers.is_running(n) for n in range(orchestrator.balancers.count + 1, 6)))
            until(90, "as few as at first", lambda: orchestrator.balancers.count == 3 and orchestrator.backends.count == 4)
            until(90, "the backends that were removed have ended", lambda: not orchestrator.backends.leaving
                  and not any(fleet.backends.is_running(n) for n in range(5, 9)))
            self.expect_unbroken(sessions, "scaled in")
            fleet.await_all()
        finally:
            sessions.stop()
        self.expect_served("the fleet grew and shrank")

    def expect_unbroken(self, sessions, what):
        if sessions.broken:
            raise Failure(f"{what}: {len(sessions.broken)} are broken: {'; '.join(sessions.broken[:3])}")
        self.say(f"    {what}: 0 broken")


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 2):
            return True
    except OSError:
        return False


def drop(*rules):
    """Packets of this network namespace by these rules of nft are lost."""
    lines = "\n".join(rules)
    text = f"table inet fleet {{\n chain out {{\n  type filter hook output priority 0;\n{lines}\n }}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def pass_all():
    subprocess.run(["nft", "delete", "table", "inet", "fleet"], check=True)


def run_trials(fleet, say, everything):
    """Returns the line of figures; raises Failure."""
    trials = Trials(fleet, say)
    fleet.start()
    say(f"{len(fleet.in_dns())} balancers are in DNS, each with all backends")
    trials.load.start()
    try:
        fleet.prometheus.await_alert("FleetWatchdog")
        trials.know_each_other()
        trials.register()
        trials.lose_backends()
        trials.stop_balancer()
        trials.kill_balancer()
        trials.kill_leader()
        trials.kill_coredns()
        trials.kill_prometheus()
        trials.know_each_other()
        if everything:
            trials.change_one()
            trials.partition_member()
            trials.cut_balancer_off()
            trials.scale()
            trials.lose_etcd()
    finally:
        trials.load.stop()
    fleet.expect_running()
    return f"{trials.requests} requests, 0 failed; {'; '.join(trials.figures)}"
