"""What the orchestrator starts and stops: balancers, and backends that register themselves in etcd."""

import http.client
import json
import pathlib
import signal
import socket

from engines import DOMAIN, endpoints

LISTENER_PORT, METRICS_PORT = 8080, 9902
BACKEND_PORTS = 8100
LEASE_SECONDS = 5
CHECK_SECONDS = 1
POOL = "web"
BACKLOG = 4096

CONFIG = """[global]
workers = 1
# The cache of CoreDNS and the client may each keep an answer for its ttl.
shutdown_delay = "4s"
drain_timeout = "5m"
[admin]
metrics = "{address}:{metrics}"
[announce]
endpoints = [{endpoints}]
domain = "{domain}"
name = "{name}"
ttl = "1s"
lease = "{lease}s"
only_with_backends = true
[fleet]
[[listener]]
name = "web"
bind = "{address}:{port}"
backlog = {backlog}
[[pool]]
name = "{pool}"
# A backend that leaves etcd gets no new sessions; those that it has finish.
on_remove = "keep"
[pool.health]
interval = "{check}s"
fast_interval = "200ms"
[[pool.discover]]
type = "etcd"
prefix = "/l4lb/{pool}/"
endpoints = [{endpoints}]
interval = "2s"
"""


class Admin(http.client.HTTPConnection):
    """The admin API of a balancer, over its socket."""

    def __init__(self, path):
        super().__init__("l4lb", timeout=5)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def read(self, path):
        """The JSON of an answer; the connection stays for the next one. Fails as OSError."""
        try:
            self.request("GET", path)
            answer = self.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status}")
            return json.loads(text)
        except (http.client.HTTPException, ValueError) as error:
            self.close()
            raise OSError(f"{path}: {error}") from error


class Balancers:
    """lb1 on 127.0.1.1, lb2 on 127.0.1.2 and so on."""

    def __init__(self, processes, l4lb):
        self.processes, self.l4lb = processes, l4lb
        # A setting that all of them have, but for one in a test.
        self.backlogs = {}

    @staticmethod
    def name(number):
        return f"lb{number}"

    @staticmethod
    def address(number):
        return f"127.0.1.{number}"

    @staticmethod
    def user(number):
        return 20100 + number

    def socket(self, number):
        return self.processes.folder / f"{self.name(number)}.run" / "admin.sock"

    def start(self, number):
        name, user = self.name(number), self.user(number)
        folder = self.processes.folder_for(f"{name}.run", user)
        backlog = self.backlogs.get(number, BACKLOG)
        path = self.processes.folder / f"{name}.toml"
        path.write_text(CONFIG.format(
            name=name, address=self.address(number), port=LISTENER_PORT, metrics=METRICS_PORT, pool=POOL, domain=DOMAIN,
            endpoints=", ".join(f'"{endpoint}"' for endpoint in endpoints()), lease=LEASE_SECONDS, check=CHECK_SECONDS,
            backlog=backlog))
        self.processes.start(name, [self.l4lb, "-c", path], user, {"RUNTIME_DIRECTORY": str(folder)})

    def stop(self, number):
        self.processes.signal(self.name(number), signal.SIGTERM)

    def is_running(self, number):
        return self.processes.is_running(self.name(number))

    def eligible(self, number):
        """The names of the backends that may get sessions."""
        try:
            admin = Admin(self.socket(number))
            try:
                return {row["name"] for row in admin.read("/v1/backends") if row["eligible"]}
            finally:
                admin.close()
        except OSError:
            return set()

    def fleet(self, number):
        """What that balancer knows of all of them."""
        admin = Admin(self.socket(number))
        try:
            return admin.read("/v1/fleet")
        finally:
            admin.close()


class Backends:
    """b1, b2 and so on: a small HTTP server, and beside it the program that keeps it registered."""

    def __init__(self, processes, l4lb):
        self.processes, self.l4lb = processes, l4lb

    @staticmethod
    def name(number):
        return f"b{number}"

    @staticmethod
    def port(number):
        return BACKEND_PORTS + number

    def start(self, number):
        name, port = self.name(number), self.port(number)
        if not self.processes.is_running(name):
            self.processes.start(name, [self.l4lb, "backend", "--port", port])
        if not self.processes.is_running(f"{name}.register"):
            self.register(number)

    def register(self, number):
        self.processes.start(
            f"{self.name(number)}.register",
            [self.l4lb, "register", "--etcd", ",".join(endpoints()), "--pool", POOL, "--name", self.name(number),
             "--address", f"127.0.0.1:{self.port(number)}", "--ttl", f"{LEASE_SECONDS}s", "--check"])

    def deregister(self, number):
        """It gets no new sessions from now on."""
        self.processes.signal(f"{self.name(number)}.register", signal.SIGTERM)

    def kill_registration(self, number):
        self.processes.kill(f"{self.name(number)}.register")

    def kill(self, number):
        """Both, as if its machine had failed."""
        self.kill_registration(number)
        self.processes.kill(self.name(number))

    def is_running(self, number):
        name = self.name(number)
        return self.processes.is_running(name) and self.processes.is_running(f"{name}.register")


def sessions_of_port(port):
    """Connections of this machine that are established to a port of IPv4."""
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[3] == "01" and row[2].endswith(f":{port:04X}") for row in rows)
