"""What one run of a contestant needs: a database with its schema and jobs, its worker, and a receiver."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .contestants import Contestant
from .processes import Child, Failure, run_to_end
from .servers import Postgres

WORKERS = Path(__file__).resolve().parent.parent / "workers"
SECRET = "whsec_" + "bWFydGxldC1jb21wYXJlZC13aXRoLXBlZXJz"


class Loader:
    """The process that enqueues. Asked for a number of jobs, it says when they are in."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.enqueued = 0

    def enqueue(self, count: int) -> None:
        stdin, stdout = self._child.process.stdin, self._child.process.stdout
        assert stdin is not None and stdout is not None
        print(count, file=stdin, flush=True)
        if stdout.readline().strip() != str(count):
            raise Failure(f"jobs could not be enqueued:\n{self._child.tail()}")
        self.enqueued += count


@dataclass
class Stage:
    """A contestant's schema is installed; nothing is enqueued and no worker runs."""

    contestant: Contestant
    database: str
    rig: "Rig"
    environment: dict[str, str]

    def _arguments(self, command: str) -> list[str]:
        return [sys.executable, str(WORKERS / self.contestant.script), command]

    @contextmanager
    def loader(self) -> Iterator[Loader]:
        with Child(self._arguments("load"), self.rig.log, environment=self.environment, conversation=True) as child:
            yield Loader(child)

    def worker(self) -> Child:
        return Child(self._arguments("work"), self.rig.log, environment=self.environment)

    def worker_commits(self, synchronous: bool) -> None:
        """For sessions from now on: enqueuing is over, or its session open already, and always waits for the disk."""
        mode = "on" if synchronous else "off"
        self.rig.postgres.execute(f'ALTER DATABASE "{self.database}" SET synchronous_commit = {mode}')

    def unrecorded(self, jobs: int) -> int:
        return int(str(self.rig.postgres.value(self.contestant.unrecorded.format(jobs=jobs), self.database)))


@dataclass
class Rig:
    directory: Path
    postgres: Postgres
    martlet: Path
    synchronous: bool
    # The HTTP client of those that need one: see workers/webhook.py.
    client: str

    @property
    def log(self) -> Path:
        return self.directory / "contestant.log"

    @contextmanager
    def stage(self, contestant: Contestant, webhook_url: str) -> Iterator[Stage]:
        self.log.write_bytes(b"")
        with self.postgres.database(f"peer_{contestant.name}") as database:
            environment = {
                "DATABASE_URL": self.postgres.url(database),
                "WEBHOOK_URL": webhook_url,
                "WEBHOOK_SECRET": SECRET,
                "MARTLET": str(self.martlet),
                "WEBHOOK_CLIENT": self.client,
                "COMMITS": "synchronous" if self.synchronous else "asynchronous",
            }
            stage = Stage(contestant, database, self, environment)
            run_to_end(stage._arguments("install"), self.log, environment)
            yield stage

    def version(self, stage: Stage) -> str:
        contestant = stage.contestant
        if contestant.distribution:
            return metadata.version(contestant.distribution)
        if contestant.version:
            return str(self.postgres.value(contestant.version, stage.database))
        return os.popen(f"'{self.martlet}' --version").read().strip()
