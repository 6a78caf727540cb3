"""A throwaway PostgreSQL and a receiver that costs as little as any."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from .processes import Child, Failure, run_to_end, service_user, wait_until

# What is not PostgreSQL's default, for everybody. Durable as in production: fsync and full_page_writes stay on.
POSTGRES_SETTINGS = {"shared_buffers": "256MB"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _own(directory: Path) -> str | None:
    user = service_user()
    if user:
        shutil.chown(directory, user)
    return user


def _postgres_binaries() -> Path:
    """Of the newest version, unless MARTLET_PG_BIN says otherwise."""
    chosen = os.environ.get("MARTLET_PG_BIN")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for candidate in [Path(chosen)] if chosen else installed:
        if (candidate / "initdb").exists():
            return candidate
    raise Failure("no PostgreSQL server was found; set MARTLET_PG_BIN to the folder of initdb")


class Postgres:
    def __init__(self, process: Child, port: int) -> None:
        self.process = process
        self._port = port

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def value(self, query: str, database: str = "postgres") -> object:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            row = connection.execute(query).fetchone()
            return row[0] if row else None

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        self.execute(f'CREATE DATABASE "{name}"')
        try:
            yield name
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def postgres(directory: Path) -> Iterator[Postgres]:
    binaries, data, port = _postgres_binaries(), directory / "postgres", free_port()
    data.mkdir()
    user, log = _own(data), directory / "postgres.log"
    with Child([f"{binaries}/initdb", "-D", str(data), "-U", "postgres", "-A", "trust"], log, user=user) as initdb:
        if initdb.process.wait() != 0:
            raise Failure(f"initdb failed:\n{initdb.tail()}")
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": data, **POSTGRES_SETTINGS}
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every session.
    with Child([f"{binaries}/postgres", "-D", str(data)], log, user=user, stop_signal=signal.SIGINT) as process:
        server = Postgres(process, port)

        def answers() -> bool:
            try:
                return server.value("SELECT 1") == 1
            except psycopg.OperationalError:
                return False

        if not wait_until(answers, 30, process):
            raise Failure(f"PostgreSQL does not answer:\n{process.tail()}")
        yield server


def _nginx_binary() -> str:
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise Failure("nginx is missing")
    return binary


def nginx_version() -> str:
    text = subprocess.run([_nginx_binary(), "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\S+)", text)
    return found.group(1) if found else "?"


class Receiver:
    """nginx with one process, which answers 204 and writes a line about each request: when, how long, and its webhook-id."""

    def __init__(self, process: Child, port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}/hook"
        self._log = log
        self._counted = self._offset = 0

    def count(self) -> int:
        """Requests so far, but for the newest fifth of a second."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            while block := file.read(1 << 20):
                self._counted += block.count(b"\n")
                self._offset += len(block)
        return self._counted

    def arrivals(self) -> Iterator[tuple[float, int, bytes]]:
        """Of each request the second, the body's length and the webhook-id, in order of arrival."""
        with self._log.open("rb") as file:
            for line in file:
                second, length, message_id = line.split()
                yield float(second), int(length), message_id


@contextmanager
def receiver(directory: Path) -> Iterator[Receiver]:
    port, home = free_port(), directory / "nginx"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    user = _own(home)
    scratch = "".join(f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    configuration = f"""
        daemon off; worker_processes 1; pid {home}/nginx.pid; error_log stderr error;
        events {{ worker_connections 8192; }}
        http {{
          log_format arrival '$msec $content_length $http_webhook_id';
          access_log {home}/arrivals.log arrival buffer=64k flush=200ms;
          keepalive_requests 1000000000; keepalive_timeout 1h; {scratch}
          server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 204; }} }}
        }}
        """
    (home / "nginx.conf").write_text(configuration)
    arguments = [_nginx_binary(), "-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr"]
    with Child(arguments, directory / "nginx.log", user=user) as process:

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        if not wait_until(answers, 10, process):
            raise Failure(f"nginx does not answer:\n{process.tail()}")
        yield Receiver(process, port, home / "arrivals.log")


__all__ = ["POSTGRES_SETTINGS", "Postgres", "Receiver", "free_port", "nginx_version", "postgres", "receiver", "run_to_end"]
