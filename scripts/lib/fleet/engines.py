"""etcd, CoreDNS and Prometheus: their settings, how they start, and questions to them."""

import base64
import http.client
import json
import pathlib
import re
import urllib.parse

from processes import Failure, until

MEMBERS = (1, 2, 3)
ETCD_PORT, PEER_PORT = 2379, 2380
DOMAIN = "lb.test"
NAME = f"web.{DOMAIN}"
# Two, as in /etc/resolv.conf: what one of them does not answer, the other does.
RESOLVERS = {"dns1": ("127.0.0.1", 1053), "dns2": ("127.0.0.2", 1053)}
DNS_METRICS_PORT = 9153
PROMETHEUS = "127.0.0.1:9090"
CONFIG = pathlib.Path(__file__).resolve().parents[3] / "config"

COREFILE = """.:{port} {{
    bind {address}
    errors
    health {address}:8053
    ready {address}:8054
    prometheus {address}:{metrics}
    loadbalance round_robin
    cache {{
        success 9984 1 0
        denial 9984 1 0
        servfail 0
        serve_stale 1h verify 250ms 1s 1s
    }}
    etcd {domain} {{
        path /skydns
        endpoint {endpoints}
    }}
}}
"""

SCRAPES = """global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [alerts.yml, alerts_fleet.yml]
scrape_configs:
  - job_name: l4lb
    file_sd_configs: [{{files: [balancers.json], refresh_interval: 1s}}]
  - job_name: etcd
    static_configs: [{{targets: [{etcd}]}}]
  - job_name: coredns
    static_configs: [{{targets: [{coredns}]}}]
"""


def endpoints():
    return [f"127.0.2.{member}:{ETCD_PORT}" for member in MEMBERS]


def b64(text):
    return base64.b64encode(text.encode()).decode()


def text_of(value):
    return base64.b64decode(value).decode()


def fetch(address, path, body=None, timeout=2):
    """The JSON of an answer; fails as OSError."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"{address}{path}: {answer.status} {text[:200]!r}")
        return json.loads(text or b"null")
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{address}{path}: {error}") from error
    finally:
        connection.close()


class Etcd:
    """A cluster of three members on 127.0.2.1 to 3."""

    def __init__(self, processes):
        self.processes = processes

    def start(self, member):
        cluster = ",".join(f"m{m}=http://127.0.2.{m}:{PEER_PORT}" for m in MEMBERS)
        client, peer = f"http://127.0.2.{member}:{ETCD_PORT}", f"http://127.0.2.{member}:{PEER_PORT}"
        folder = self.processes.folder_for(f"etcd{member}.data", self.user(member))
        self.processes.start(
            f"etcd{member}",
            ["etcd", "--logger=zap", "--log-level=error", "--name", f"m{member}", "--data-dir", folder,
             "--initial-cluster", cluster, "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
            self.user(member))

    @staticmethod
    def user(member):
        return 20200 + member

    def ask(self, path, body, members=MEMBERS, timeout=2):
        """The answer of the first member that has one."""
        error = None
        for member in members:
            try:
                return fetch(f"127.0.2.{member}:{ETCD_PORT}", f"/v3/{path}", body, timeout)
            except OSError as failed:
                error = failed
        raise error

    def put(self, key, value, lease=0, members=MEMBERS):
        self.ask("kv/put", {"key": b64(key), "value": b64(value), "lease": str(lease)}, members)

    def delete(self, key):
        self.ask("kv/deleterange", {"key": b64(key)})

    def keys(self, prefix):
        last = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self.ask("kv/range", {"key": b64(prefix), "range_end": b64(last)})
        return {text_of(kv["key"]): text_of(kv["value"]) for kv in answer.get("kvs", [])}

    def takes_keys(self, members=MEMBERS):
        try:
            self.put("/takes", "keys", members=members)
            return True
        except OSError:
            return False

    def leader(self):
        for member in MEMBERS:
            try:
                status = self.ask("maintenance/status", {}, (member,))
            except OSError:
                continue
            if status.get("leader") == status["header"]["member_id"]:
                return member
        raise Failure("no member of etcd is the leader")


class CoreDns:
    def __init__(self, processes, program):
        self.processes, self.program = processes, program

    def start(self, name):
        address, port = RESOLVERS[name]
        path = self.processes.folder / f"{name}.conf"
        path.write_text(COREFILE.format(
            address=address, port=port, metrics=DNS_METRICS_PORT, domain=DOMAIN,
            endpoints=" ".join(f"http://{endpoint}" for endpoint in endpoints())))
        self.processes.start(name, [self.program, "-conf", path])


class Prometheus:
    """With the rules of config/. In tests an alert need not last before it fires."""

    def __init__(self, processes, at_once):
        self.processes, self.at_once = processes, at_once

    def write_files(self):
        folder = self.processes.folder
        for rules in ("alerts.yml", "alerts_fleet.yml"):
            text = (CONFIG / rules).read_text()
            (folder / rules).write_text(re.sub(r"(?m)^( +for: ).*", r"\g<1>0s", text) if self.at_once else text)
        quoted = ", ".join(f'"{endpoint}"' for endpoint in endpoints())
        servers = ", ".join(f'"{address}:{DNS_METRICS_PORT}"' for address, _ in RESOLVERS.values())
        (folder / "prometheus.yml").write_text(SCRAPES.format(etcd=quoted, coredns=servers))

    def follow(self, addresses):
        """What to scrape as l4lb from now on."""
        path = self.processes.folder / "balancers.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps([{"targets": sorted(addresses)}]))
        new.rename(path)

    def start(self):
        folder = self.processes.folder
        self.processes.start(
            "prometheus",
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             "--storage.tsdb.retention.time=1h", f"--web.listen-address={PROMETHEUS}", "--log.level=warn"])

    def value(self, query):
        """The sum of what a query returns; None without a result or a Prometheus."""
        try:
            answer = fetch(PROMETHEUS, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        except OSError:
            return None
        found = answer["data"]["result"]
        return sum(float(row["value"][1]) for row in found) if found else None

    def firing(self):
        try:
            alerts = fetch(PROMETHEUS, "/api/v1/alerts")["data"]["alerts"]
        except OSError:
            return set()
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def await_alert(self, name, fires=True, seconds=90):
        what = f"the alert {name} {'fires' if fires else 'is over'}"
        return until(seconds, what, lambda: (name in self.firing()) == fires, every=0.2)
