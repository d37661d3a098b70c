"""What stands behind the proxies: an HTTP server, an iperf3 server, an echo server."""

import contextlib
import http.client
import os
import pathlib
import random
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from .process import BenchError, Process

PEERS = pathlib.Path(__file__).resolve().parent.parent / "lib" / "peers"
SMALL = "/"
STATUS = "/status"
BODIES = {SMALL: 100, "/64k": 64 << 10, "/1m": 1 << 20}
FETCH_TIMEOUT = 5


def free_ports(count: int) -> list[int]:
    command = [sys.executable, str(PEERS), "free-ports", str(count)]
    return list(map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))


def backend_addresses(count: int, port: int) -> list[str]:
    """As many addresses of the loopback network as wanted: one server listens on all of them."""
    return [f"127.1.{place // 250}.{place % 250 + 1}:{port}" for place in range(count)]


@dataclass(frozen=True)
class WebServer:
    process: Process
    port: int
    # Where it reads a PROXY header first.
    header_port: int
    tls_port: int
    bodies: dict[str, bytes]

    def response_bytes(self, address: str, path: str, close: bool, tls: bool = False) -> int:
        """The size of one response with its head, after a look at whether it is the right one."""
        client = http.client.HTTPConnection(address, timeout=FETCH_TIMEOUT)
        if tls:
            # The certificate is of nobody.
            context = ssl._create_unverified_context()
            client = http.client.HTTPSConnection(address, timeout=FETCH_TIMEOUT, context=context)
        with contextlib.closing(client):
            client.request("GET", path, headers={"Connection": "close"} if close else {})
            response = client.getresponse()
            body = response.read()
        if response.status != 200 or body != self.bodies[path]:
            wrong = f"status {response.status}, {len(body)} bytes that are not the file's"
            raise BenchError(f"GET {path} of {address}: {wrong}")
        head = f"HTTP/1.1 {response.status} {response.reason}\r\n"
        return len(head) + sum(len(f"{key}: {value}\r\n") for key, value in response.getheaders()) + 2 + len(body)


    def connections(self) -> int:
        """How many there are now, without the one that asks."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=FETCH_TIMEOUT)
        with contextlib.closing(client):
            client.request("GET", STATUS)
            told = client.getresponse().read().decode()
        return int(re.search(r"Active connections: (\d+)", told)[1]) - 1


@contextlib.contextmanager
def web_server(work: pathlib.Path, cpus: set[int], workers: int) -> Iterator[WebServer]:
    home = work / "web"
    files = home / "files"
    files.mkdir(parents=True)
    bodies = {path: random.Random(path).randbytes(size) for path, size in BODIES.items() if path != SMALL}
    bodies[SMALL] = b"small" * (BODIES[SMALL] // 5)
    for path, body in bodies.items():
        if path != SMALL:
            (files / path.strip("/")).write_bytes(body)
    port, header_port, tls_port = free_ports(3)
    key, certificate = home / "key.pem", home / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    temporary = "\n".join(
        f"    {kind}_temp_path {home}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    )
    (home / "nginx.conf").write_text(
        f"""{nginx_user()}
daemon off;
pid {home}/nginx.pid;
error_log stderr;
worker_processes {workers};
worker_rlimit_nofile 16000;
events {{ worker_connections 8000; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    open_file_cache max=16;
    default_type text/plain;
{temporary}
    server {{
        listen 0.0.0.0:{port} backlog=4096;
        listen 0.0.0.0:{header_port} backlog=4096 proxy_protocol;
        listen 0.0.0.0:{tls_port} backlog=4096 ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {files};
        location = / {{ return 200 "{bodies[SMALL].decode()}"; }}
        location = {STATUS} {{ stub_status; }}
    }}
}}
"""
    )
    command = ["nginx", "-p", str(home), "-e", "stderr", "-c", str(home / "nginx.conf")]
    with Process("web-server", command, work, cpus) as process:
        process.await_listening([port, header_port, tls_port])
        yield WebServer(process, port, header_port, tls_port, bodies)


def nginx_user() -> str:
    """Workers that are root like the master may read a directory that is ours alone."""
    return "user root;" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def iperf_server(work: pathlib.Path, cpus: set[int], port: int, nice: int = 0) -> Iterator[Process]:
    """Serves one test and ends, so that a test that broke is not in the way of the next."""
    command = ["iperf3", "--server", "--one-off", "--forceflush", "--bind", "127.0.0.1", "--port", str(port)]
    with Process("iperf3-server", command, work, cpus, nice) as process:
        process.await_listening([port])
        yield process


@contextlib.contextmanager
def echo_server(work: pathlib.Path, cpus: set[int], port: int) -> Iterator[Process]:
    with Process("echo-server", [sys.executable, str(PEERS), "echo", f"127.0.0.1:{port}"], work, cpus) as process:
        process.await_listening([port])
        yield process
