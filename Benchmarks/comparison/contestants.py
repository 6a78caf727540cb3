"""Who takes part, with which settings, and how to ask each whether it has recorded what it delivered."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    name: str
    # Its distribution on PyPI, for the version; None: asked otherwise.
    distribution: str | None
    # Jobs of one drain, so that each takes several seconds.
    jobs: int
    # How many of `{jobs}` jobs have no recorded outcome, as SQL.
    unrecorded: str
    settings: str
    # Of the schema, for what can be asked only of the database.
    version: str | None = None

    @property
    def script(self) -> str:
        return f"{self.name}_worker.py"


MARTLET = Contestant(
    name="martlet",
    distribution=None,
    jobs=100_000,
    unrecorded="SELECT {jobs} - count(*) FROM outbox.attempt WHERE outcome = 'delivered'",
    settings="one endpoint, max_in_flight 64; signing, history, retries, circuit breaker: as they are by default",
)

PEERS = [
    Contestant(
        name="pgqueuer",
        distribution="pgqueuer",
        jobs=100_000,
        unrecorded="SELECT {jobs} - count(*) FROM pgqueuer_log WHERE status = 'successful'",
        settings="asyncpg, batch_size 100, no limit on concurrent tasks, durability `durable`, uvloop",
    ),
    Contestant(
        name="awa",
        distribution="awa-pg",
        jobs=40_000,
        unrecorded="SELECT {jobs} - count(*) FROM awa.jobs WHERE state = 'completed'",
        settings="queue storage, enqueue_many_copy, 256 workers, 4 claimers, uvloop",
    ),
    Contestant(
        name="procrastinate",
        distribution="procrastinate",
        jobs=3_000,
        unrecorded="SELECT {jobs} - count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        settings="PsycopgConnector with a connection a job, batch_defer, concurrency 50, delete_jobs `never`, uvloop",
    ),
    Contestant(
        name="pgq",
        distribution=None,
        jobs=100_000,
        unrecorded="SELECT pending_events FROM pgq.get_consumer_info('webhooks', 'poster')",
        settings="a tick every 100 ms, 64 posts at a time, asyncpg, uvloop; no state or history per event",
        version="SELECT extversion FROM pg_extension WHERE extname = 'pgq'",
    ),
]
