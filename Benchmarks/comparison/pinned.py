"""How a contestant keeps its pace while one long transaction keeps PostgreSQL from cleaning up behind it."""

import bisect
import time
from dataclasses import dataclass

import psycopg

from .contestants import Contestant
from .processes import Child, Failure, wait_until
from .rig import Loader, Rig
from .servers import Receiver, receiver

# What is kept waiting, so that the worker sets the pace: a few seconds' work, and never more than it can take in the end.
LEAST_BACKLOG = 500
BACKLOG_SECONDS = 3
STEP_SECONDS = 0.25


@dataclass
class Pinned:
    first_per_second: float
    last_per_second: float
    delivered: int
    dead_rows_per_delivery: float
    # Whether there always was something to deliver; if not, the publisher set the pace.
    always_backlog: bool

    @property
    def ratio(self) -> float:
        return self.last_per_second / self.first_per_second


def pinned(rig: Rig, contestant: Contestant, seconds: int) -> Pinned:
    """Throws unless everything that was enqueued has arrived in the end."""
    with receiver(rig.directory) as nginx, rig.stage(contestant, nginx.url) as stage, stage.loader() as loader:
        loader.enqueue(2 * LEAST_BACKLOG)
        stage.worker_commits(rig.synchronous)
        with psycopg.connect(rig.postgres.url(stage.database)) as holder, stage.worker() as worker:
            # As a migration or a long report does: the transaction has an id and a snapshot, both held to the end.
            holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            holder.execute("SELECT pg_current_xact_id()")
            if not wait_until(lambda: nginx.count() > 0, 30, worker, nginx.process):
                raise Failure(f"{contestant.name} delivered nothing within 30 s:\n{worker.tail()}")
            always_backlog = _feed(loader, nginx, worker, seconds)
            if not wait_until(lambda: nginx.count() >= loader.enqueued, 60, worker, nginx.process):
                raise Failure(f"{contestant.name} delivered {nginx.count()} of {loader.enqueued}:\n{worker.tail()}")
            dead_rows = rig.postgres.value("SELECT sum(n_dead_tup) FROM pg_stat_user_tables", stage.database)
        ids, times = set(), []
        for second, _, message_id in nginx.arrivals():
            ids.add(message_id)
            times.append(second)
    if len(ids) != loader.enqueued:
        raise Failure(f"{contestant.name}: {loader.enqueued - len(ids)} of {loader.enqueued} jobs missing")
    window = min(20.0, seconds / 3)
    return Pinned(
        first_per_second=_rate(times, times[0], window),
        last_per_second=_rate(times, times[0] + seconds - window, window),
        delivered=len(ids),
        dead_rows_per_delivery=float(str(dead_rows)) / len(ids),
        always_backlog=always_backlog,
    )


def _feed(loader: Loader, nginx: Receiver, worker: Child, seconds: int) -> bool:
    """Keeps BACKLOG_SECONDS of work waiting. Returns whether there always was some."""
    start = checked = time.monotonic()
    arrived = nginx.count()
    per_second, always = 0.0, True
    while checked < start + seconds:
        time.sleep(STEP_SECONDS)
        worker.check()
        now, count = time.monotonic(), nginx.count()
        per_second = max(0.7 * per_second, (count - arrived) / (now - checked))
        checked, arrived = now, count
        backlog = loader.enqueued - count
        always = always and backlog > 0
        wanted = max(LEAST_BACKLOG, int(BACKLOG_SECONDS * per_second)) - backlog
        if wanted > 0:
            loader.enqueue(wanted)
    return always


def _rate(times: list[float], start: float, window: float) -> float:
    return (bisect.bisect_left(times, start + window) - bisect.bisect_left(times, start)) / window
