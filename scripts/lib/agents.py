#!/usr/bin/env python3
"""Random scripts of agent answers, for HAProxy and l4lb side by side.

    agents.py write DIR SEED COUNT     writes the configurations of both, and the scripts
    agents.py serve DIR                answers both as the scripts say, until it is ended
    agents.py compare DIR              exits 0 once both have the same state of each backend, or prints what differs

Each script belongs to one backend. Both balancers get its answers one by one, each at its own pace, and nothing new at its
end: what an agent has said holds until it says something else.
"""
import asyncio
import json
import random
import socket
import subprocess
import sys
from pathlib import Path

INTERVAL_MS = 500
BEHIND_THE_END = 2
GROUPS = ("unchecked", "well", "dead")
# Words that both understand. HAProxy 2.6 knows a weight as a percentage only.
WEIGHTS = ("0%", "1%", "33%", "75%", "100%", "150%", "256%", "300%", "99999%")
WORDS = WEIGHTS + ("up", "down", "fail", "stopped", "UP", "Down", "ready", "drain", "maint", "READY", "maxconn:%d", "failed")
BLANKS = (" ", ",", "\t", ", ", " ,\t")
ENDS = ("\n", "\r\n", "\r", "\n100%\n")


def draw_line(rng):
    """One answer: a line of a few words, or something that is none."""
    if rng.random() < 0.12:
        # A part of a line, nothing at all, or far too much.
        return rng.choice(["drain", "", "0% down,", "x" * 40_000])
    words = []
    for _ in range(rng.choice([1, 1, 2, 3, 5])):
        word = rng.choice(WORDS)
        words.append(word % rng.randrange(1, 1000) if "%d" in word else word)
    # No blank in front: that is a word as well.
    note = rng.choice(["", "", " # for the test", " #down drain 1%"])
    return rng.choice(BLANKS).join(words) + note + rng.choice(ENDS)


def name(index):
    return f"b{index}"


def write(folder, seed, count):
    rng = random.Random(seed)
    scripts = {name(i): [draw_line(rng) for _ in range(rng.randrange(3, 9))] for i in range(count)}
    ports = free_ports(5)
    agent_of_haproxy, agent_of_l4lb, well, haproxy_port, l4lb_port = ports
    dead = free_ports(1)[0]
    group_of = {name(i): GROUPS[i % len(GROUPS)] for i in range(count)}
    address_of = {name(i): f"127.{77}.{i // 250}.{i % 250 + 1}" for i in range(count)}
    plan = {
        "scripts": scripts,
        "ports": {"haproxy": agent_of_haproxy, "l4lb": agent_of_l4lb},
        "well": [[address_of[b], well] for b, group in group_of.items() if group == "well"],
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    haproxy = [
        "global",
        f"    stats socket {folder}/haproxy.sock mode 600 level admin",
        "defaults",
        "    mode tcp",
        "    timeout connect 1s",
        "    timeout client 10s",
        "    timeout server 10s",
        "listen in",
        f"    bind 127.0.0.1:{haproxy_port}",
    ]
    l4lb = []
    for group in GROUPS:
        port = dead if group == "dead" else well
        haproxy += [f"backend {group}", "    balance roundrobin"]
        health = 'type = "off"' if group == "unchecked" else f'interval = "{INTERVAL_MS}ms"'
        l4lb += [
            "[[listener]]",
            f'name = "{group}"',
            f'bind = "127.0.0.1:{l4lb_port if group == GROUPS[0] else free_ports(1)[0]}"',
            f'pool = "{group}"',
            "[[pool]]",
            f'name = "{group}"',
            f"health = {{ {health} }}",
            "[pool.agent]",
            'address = "127.0.0.1"',
            f"port = {agent_of_l4lb}",
            'send = "{backend}\\n"',
            f'interval = "{INTERVAL_MS}ms"',
            f'timeout = "{INTERVAL_MS}ms"',
        ]
        check = "" if group == "unchecked" else f" check inter {INTERVAL_MS}ms"
        for backend in (b for b, its in group_of.items() if its == group):
            haproxy.append(
                f"    server {backend} {address_of[backend]}:{port} weight 100{check} agent-check agent-addr 127.0.0.1"
                f' agent-port {agent_of_haproxy} agent-inter {INTERVAL_MS}ms agent-send "{backend}\\n"'
            )
            l4lb += [
                "[[pool.backend]]",
                f'name = "{backend}"',
                f'address = "{address_of[backend]}:{port}"',
                "weight = 100",
            ]
    (folder / "haproxy.cfg").write_text("\n".join(haproxy) + "\n")
    (folder / "l4lb.toml").write_text("\n".join(l4lb) + "\n")


def free_ports(count):
    peers = Path(__file__).parent / "peers"
    found = subprocess.run(
        [sys.executable, str(peers), "free-ports", str(count)], check=True, capture_output=True, text=True
    )
    return [int(port) for port in found.stdout.split()]


class Agents:
    """The agents of one balancer."""

    def __init__(self, balancer, scripts):
        self.balancer = balancer
        self.left = {backend: list(script) for backend, script in scripts.items()}
        # Exchanges from the end of each script on. A further one shows that the last answer was read.
        self.over = {backend: 0 for backend in scripts}
        self.has_told = False

    async def answer(self, reader, writer):
        try:
            backend = (await reader.readline()).decode().strip()
            if backend in self.left:
                await self.say(backend, reader, writer)
        except OSError:
            # HAProxy resets the connection as soon as it has the line.
            pass
        finally:
            writer.close()

    async def say(self, backend, reader, writer):
        script = self.left[backend]
        line = script.pop(0) if script else "\n"
        self.over[backend] += not script
        if not self.has_told and all(count > BEHIND_THE_END for count in self.over.values()):
            self.has_told = True
            print(f"{self.balancer} has heard all", flush=True)
        writer.write(line.encode())
        await writer.drain()
        writer.write_eof()
        await reader.read()


async def serve(folder):
    plan = json.loads((folder / "plan.json").read_text())
    for balancer, port in plan["ports"].items():
        agents = Agents(balancer, plan["scripts"])
        await asyncio.start_server(agents.answer, "127.0.0.1", port, backlog=1024)

    async def close(_, writer):
        writer.close()

    for address, port in plan["well"]:
        await asyncio.start_server(close, address, port)
    print("serving", flush=True)
    await asyncio.Event().wait()


def ask_haproxy(folder, command):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder}/haproxy.sock")
        client.sendall(command.encode() + b"\n")
        answer = b""
        while chunk := client.recv(1 << 16):
            answer += chunk
    return answer.decode()


def of_haproxy(folder):
    """By backend: weight, administrative state, whether it is up, and maxconn. A server in maintenance is neither up nor
    down."""
    states = {}
    for line in ask_haproxy(folder, "show servers state").splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[0].startswith("#"):
            continue
        server, state, admin, weight = fields[3], int(fields[5]), int(fields[6]), int(fields[7])
        word = "maint" if admin & 0x01 else "drain" if admin & 0x08 else "ready"
        states[server] = {"weight": weight, "admin": word, "up": None if word == "maint" else state == 2}
    head, *rows = ask_haproxy(folder, "show stat").lstrip("# ").splitlines()
    columns = head.split(",")
    for row in rows:
        row = dict(zip(columns, row.split(",")))
        if row.get("svname") in states:
            states[row["svname"]]["maxconn"] = int(row["slim"]) if row["slim"] else None
    return states


def of_l4lb(backends):
    states = {}
    for row in backends:
        states[row["name"]] = {
            "weight": row["weight"],
            "admin": row["admin"],
            "up": None if row["admin"] == "maint" else row["health"] != "down",
            "maxconn": row["agent"]["maxconn"],
        }
    return states


def compare(folder):
    scripts = json.loads((folder / "plan.json").read_text())["scripts"]
    theirs, ours = of_haproxy(folder), of_l4lb(json.load(sys.stdin))
    differing = [backend for backend in scripts if theirs.get(backend) != ours.get(backend)]
    for backend in differing[:5]:
        print(f"{backend}: HAProxy {theirs.get(backend)}, l4lb {ours.get(backend)}")
        print(f"    after {[line[:60] for line in scripts[backend]]}")
    kinds = {json.dumps(state, sort_keys=True) for state in ours.values()}
    print(f"{len(scripts) - len(differing)} of {len(scripts)} the same, {len(kinds)} different states")
    sys.exit(1 if differing else 0)


def main():
    command, folder, *rest = sys.argv[1:]
    if command == "write":
        write(Path(folder), int(rest[0]), int(rest[1]))
    elif command == "serve":
        asyncio.run(serve(Path(folder)))
    elif command == "compare":
        compare(Path(folder))
    else:
        sys.exit(f"agents.py: unknown command {command}")


if __name__ == "__main__":
    main()
