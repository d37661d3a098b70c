"""The proxies, each configured for the same work: plain TCP, round robin, no checks of backends, no log of sessions.

All else is their default, but for room: as many sessions and waiting connections as the loads need.
"""

import pathlib
import re
import subprocess
from dataclasses import dataclass
from typing import Protocol

from .backends import nginx_user

L4LB = "l4lb"
PEERS = ["haproxy", "haproxy-splice", "nginx", "sozu"]

SESSIONS_MAX = 5500
# Two of them serve a session that is spliced both ways.
PIPES_MAX = 2100
BACKLOG = 4096
# The server that clients of TLS name.
SERVER_NAME = "localhost"


@dataclass(frozen=True)
class Service:
    """One listener and its backends."""

    name: str
    port: int
    backends: list[str]
    # The backends read a PROXY header first: of version 2, of nginx 1.
    header: bool = False
    # The proxy reads the hello of each client, and routes by the name of the server in it.
    preread: bool = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Proxy(Protocol):
    name: str
    title: str

    def configure(self, home: pathlib.Path, services: list[Service], workers: int) -> list[str]:
        """Writes what it needs into a directory of its own; the command that runs it in the foreground."""

    def version(self) -> str: ...


class L4lb:
    name = L4LB
    title = "l4lb"

    def __init__(self, program: str) -> None:
        self.program = program

    def configure(self, home: pathlib.Path, services: list[Service], workers: int) -> list[str]:
        text = f'[global]\nworkers = {workers}\nmax_sessions = {SESSIONS_MAX}\nlog = {{ level = "warn" }}\n'
        for service in services:
            text += f'[[listener]]\nbind = "{service.address}"\npool = "{service.name}"\nbacklog = {BACKLOG}\n'
            if service.preread:
                route = f'{{ sni = ["{SERVER_NAME}"], pool = "{service.name}" }}'
                text += f'tls = "passthrough"\nroute = [{route}]\n'
            text += f'[[pool]]\nname = "{service.name}"\nhealth = {{ type = "off" }}\n'
            text += 'proxy_protocol = "v2"\n' if service.header else ""
            text += "".join(f'[[pool.backend]]\naddress = "{backend}"\n' for backend in service.backends)
        config = home / "l4lb.toml"
        config.write_text(text)
        return [self.program, "-c", str(config)]

    def version(self) -> str:
        return first_line([self.program, "--version"])


class Haproxy:
    name = "haproxy"
    title = "HAProxy"
    options = ""

    def configure(self, home: pathlib.Path, services: list[Service], workers: int) -> list[str]:
        text = f"""global
    nbthread {workers}
    maxconn {SESSIONS_MAX}
    maxpipes {PIPES_MAX}
defaults
    mode tcp
    balance roundrobin
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{self.options}"""
        for service in services:
            bind = f"    bind {service.address} backlog {BACKLOG}\n"
            if service.preread:
                text += f"frontend in-{service.name}\n{bind}    tcp-request inspect-delay 3s\n"
                text += "    tcp-request content accept if { req.ssl_hello_type 1 }\n"
                text += f"    use_backend {service.name} if {{ req.ssl_sni -i {SERVER_NAME} }}\n"
                text += f"    default_backend {service.name}\nbackend {service.name}\n"
            else:
                text += f"listen {service.name}\n{bind}"
            header = " send-proxy-v2" if service.header else ""
            servers = enumerate(service.backends)
            text += "".join(f"    server s{place} {backend}{header}\n" for place, backend in servers)
        config = home / "haproxy.cfg"
        config.write_text(text)
        return ["haproxy", "-db", "-f", str(config)]

    def version(self) -> str:
        return first_line(["haproxy", "-v"])


class HaproxySplice(Haproxy):
    name = "haproxy-splice"
    title = "HAProxy, splice"
    options = "    option splice-request\n    option splice-response\n"


class Nginx:
    name = "nginx"
    title = "nginx stream"

    def configure(self, home: pathlib.Path, services: list[Service], workers: int) -> list[str]:
        module = stream_module()
        text = f"load_module {module};\n" if module.exists() else ""
        text += f"""{nginx_user()}
daemon off;
pid {home}/nginx.pid;
error_log stderr;
worker_processes {workers};
worker_rlimit_nofile 16000;
events {{ worker_connections {2 * SESSIONS_MAX + 100}; }}
stream {{
"""
        for service in services:
            backends = " ".join(f"server {backend};" for backend in service.backends)
            text += f"    upstream {service.name} {{ {backends} }}\n"
            target = service.name
            if service.preread:
                target = "$chosen"
                names = f"{SERVER_NAME} {service.name}; default {service.name};"
                text += f"    map $ssl_preread_server_name {target} {{ {names} }}\n"
            text += f"    server {{ listen {service.address} backlog={BACKLOG}; "
            text += "proxy_protocol on; " if service.header else ""
            text += "ssl_preread on; " if service.preread else ""
            text += f"proxy_pass {target}; proxy_timeout 1h; }}\n"
        config = home / "nginx.conf"
        config.write_text(text + "}\n")
        return ["nginx", "-p", str(home), "-e", "stderr", "-c", str(config)]

    def version(self) -> str:
        return first_line(["nginx", "-v"])


class Sozu:
    name = "sozu"
    title = "Sōzu"

    def __init__(self, program: str) -> None:
        self.program = program

    def configure(self, home: pathlib.Path, services: list[Service], workers: int) -> list[str]:
        text = f"""log_level = "error"
log_target = "stdout"
command_socket = "{home}/sozu.sock"
command_buffer_size = 16384
max_command_buffer_size = 16777216
worker_count = {workers}
max_connections = {SESSIONS_MAX}
max_buffers = {2 * SESSIONS_MAX}
activate_listeners = true
front_timeout = 3600
back_timeout = 3600
"""
        for service in services:
            text += f'[[listeners]]\nprotocol = "tcp"\naddress = "{service.address}"\n'
        for service in services:
            backends = ", ".join(f'{{ address = "{backend}" }}' for backend in service.backends)
            text += f'[clusters.{service.name}]\nprotocol = "tcp"\nload_balancing = "ROUND_ROBIN"\n'
            text += f'frontends = [{{ address = "{service.address}" }}]\nbackends = [{backends}]\n'
        config = home / "sozu.toml"
        config.write_text(text)
        return [self.program, "start", "-c", str(config)]

    def version(self) -> str:
        return first_line([self.program, "--version"])


def stream_module() -> pathlib.Path:
    """Debian packs it apart; elsewhere it is built in."""
    told = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
    directory = re.search(r"--modules-path=(\S+)", told)
    return pathlib.Path(directory[1] if directory else "/") / "ngx_stream_module.so"


def has_stream() -> bool:
    told = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
    return stream_module().exists() or re.search(r"--with-stream(\s|$)", told) is not None


def first_line(command: list[str]) -> str:
    told = subprocess.run(command, capture_output=True, text=True)
    return (told.stdout + told.stderr).strip().splitlines()[0]
