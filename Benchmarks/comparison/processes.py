"""Child processes: started, watched and stopped by their own process ids."""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Failure(Exception):
    """The comparison cannot be made, or a contestant did not do what it should; the text says why."""


def service_user() -> str | None:
    """Whom PostgreSQL and nginx run as; None: as we do. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise Failure("running as root, and there is neither a user postgres nor a user nobody to run PostgreSQL as")


class Child:
    """A process whose output goes to a file. A context manager: leaving it stops the process."""

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        *,
        environment: dict[str, str] | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
        conversation: bool = False,
    ) -> None:
        """`conversation`: standard input and output are pipes, for lines of text; only errors go to the file."""
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE if conversation else subprocess.DEVNULL,
                stdout=subprocess.PIPE if conversation else file,
                stderr=file,
                text=True,
                env={**os.environ, **(environment or {})},
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
                cwd=log.parent,
            )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if self.process.poll() is None:
            self.process.send_signal(self._stop_signal)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def check(self) -> None:
        """Throws if it has ended by itself."""
        status = self.process.poll()
        if status is not None:
            raise Failure(f"{self.process.args[0]} ended with {status}:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    @property
    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)


def run_to_end(arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
    with Child(arguments, log, environment=environment) as child:
        if child.process.wait() != 0:
            raise Failure(f"{' '.join(arguments)} failed:\n{child.tail()}")


def wait_until(condition: Callable[[], bool], seconds: float, *children: Child) -> bool:
    """Whether it came true in time. Throws as soon as one of the children has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def cpu_seconds(root: int) -> float:
    """Processor time of a process and of all its descendants, those included that have ended and been waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the name in parentheses, which may contain anything: state, parent, …
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))

    def belongs(pid: int) -> bool:
        while pid > 1:
            if pid == root:
                return True
            pid = parents.get(pid, 0)
        return False

    return sum(spent for pid, spent in ticks.items() if belongs(pid)) / os.sysconf("SC_CLK_TCK")
