"""Clients and a server that speak HTTP."""

import asyncio
import http.server
import re
import shutil
import socket
import sys
import threading
import time

from commands import answer, split

STICK_AGAIN_AFTER = 1


# --- stick ----------------------------------------------------------------------------------------------------------


class Sticker:
    """Clients of an HTTP server: some say nothing, some only half of a head, some a head without its body."""

    BEGINNINGS = [
        b"",
        b"GET /v1/status HTTP/1.1\r\nHost: loc",
        b"POST /v1/pools/web/backends HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ]

    def __init__(self, args):
        self.address = split(args.address)
        self.count = args.count
        self.opened = 0

    async def run(self):
        clients = [asyncio.create_task(self.stick(self.BEGINNINGS[index % 3])) for index in range(self.count)]
        while self.opened < self.count:
            await asyncio.sleep(0.1)
        print("stuck", flush=True)
        await asyncio.gather(*clients)

    async def stick(self, beginning):
        while True:
            try:
                reader, writer = await asyncio.open_connection(*self.address)
                self.opened += 1
                writer.write(beginning)
                await reader.read()
                writer.close()
            except OSError:
                pass
            await asyncio.sleep(STICK_AGAIN_AFTER)


# --- requests -------------------------------------------------------------------------------------------------------


class Requests:
    """A few threads that each make one connection a request. `mark` begins a new count."""

    THREADS = 4
    TIMEOUT = 5

    def __init__(self, args):
        self.address = split(args.address)
        self.deadline = time.monotonic() + args.seconds
        self.lock = threading.Lock()
        self.mark = time.monotonic()
        self.clear()

    def clear(self):
        self.ok = self.failed = self.from_before = 0
        self.slowest = 0.0
        self.errors = {}
        self.ports = {}

    def run(self):
        for _ in range(self.THREADS):
            threading.Thread(target=self.work, daemon=True).start()
        for line in sys.stdin:
            identity, command = line.split()
            with self.lock:
                text = self.figures()
                if command == "mark":
                    self.mark = time.monotonic()
                    self.clear()
            answer(identity, text)

    def work(self):
        while time.monotonic() < self.deadline:
            began = time.monotonic()
            try:
                port, error = self.request(), None
            except (OSError, ValueError) as failure:
                port, error = None, repr(failure).replace(" ", "_")
            with self.lock:
                self.count(began, port, error)
            time.sleep(0.001)

    def request(self):
        with socket.create_connection(self.address, self.TIMEOUT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: l4lb\r\nConnection: close\r\n\r\n")
            got = b"".join(iter(lambda: client.recv(4096), b""))
        told = re.match(rb"HTTP/1.1 200 .*on port (\d+)", got, re.DOTALL)
        if not told:
            raise ValueError(got[:40])
        return told[1].decode()

    def count(self, began, port, error):
        if began < self.mark:
            self.from_before += error is not None
        elif error:
            self.failed += 1
            self.errors[error] = self.errors.get(error, 0) + 1
        else:
            self.ok += 1
            self.ports[port] = self.ports.get(port, 0) + 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def figures(self):
        errors = ",".join(f"{error}:{count}" for error, count in self.errors.items()) or "-"
        ports = ",".join(sorted(self.ports)) or "-"
        return (
            f"ok={self.ok} failed={self.failed} from_before={self.from_before} ports={ports} "
            f"slowest_ms={1000 * self.slowest:.0f} errors={errors}"
        )


# --- files ----------------------------------------------------------------------------------------------------------


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        with open(self.translate_path(self.path), "wb") as file:
            while left:
                part = self.rfile.read(min(left, 1 << 20))
                if not part:
                    raise ConnectionError(f"{left} bytes are missing")
                file.write(part)
                left -= len(part)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def copyfile(self, source, outputfile):
        shutil.copyfileobj(source, outputfile, 1 << 20)


def serve_files(directory):
    def handler(*args):
        return Files(*args, directory=directory)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(f"port={server.server_address[1]}", flush=True)
    server.serve_forever()
