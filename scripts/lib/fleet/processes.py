"""The processes of a fleet: starts them, ends them by their process id, and reads of none but its own."""

import os
import pathlib
import signal
import subprocess
import time


class Failure(Exception):
    """Something that had to hold did not."""


def until(seconds, what, holds, every=0.02):
    """Looks again and again until `holds()` is true; returns the seconds that it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + seconds:
            raise Failure(f"waited {seconds} s in vain until {what}")
        time.sleep(every)
    return time.monotonic() - began


class Processes:
    """All by name. The kernel kills each when this process ends, however that happens."""

    def __init__(self, folder, apart=False):
        self.folder = pathlib.Path(folder)
        # Whether some processes have a user of their own, by which the packets of each can be told apart.
        self.apart = apart
        self.running = {}

    def folder_for(self, name, user):
        """A folder that only this user may enter."""
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.apart:
            os.chown(folder, user, -1)
        return folder

    def start(self, name, command, user=None, environment=None):
        """Output goes to NAME.log."""
        become = ["setpriv", "--pdeathsig", "KILL"]
        if user is not None and self.apart:
            become += ["--reuid", str(user), "--clear-groups"]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*become, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})}, start_new_session=True)
        self.running[name] = process
        return process

    def is_running(self, name):
        return name in self.running and self.running[name].poll() is None

    def signal(self, name, number):
        if self.is_running(name):
            self.running[name].send_signal(number)

    def kill(self, name):
        self.signal(name, signal.SIGKILL)
        if name in self.running:
            self.running.pop(name).wait()

    def ended(self, name, seconds):
        """Waits for the end of a process that was asked to; returns its exit code."""
        process = self.running[name]
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} has not ended {seconds} s after SIGTERM") from None
        del self.running[name]
        return code

    def kill_all(self):
        for process in list(self.running.values()):
            if process.poll() is None:
                process.kill()
        for process in list(self.running.values()):
            process.wait()

    def last_words(self, name, lines=8):
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
