"""pgqueuer: the asyncpg driver and large batches, as its benchmark page advises; tables fully durable."""

import os
from collections.abc import Awaitable, Callable

import asyncpg
from command import run
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from webhook import Poster, bodies

BATCH = int(os.environ.get("PGQUEUER_BATCH", "100"))
CONCURRENCY = int(os.environ.get("PGQUEUER_CONCURRENCY", "0")) or None


async def connect() -> AsyncpgDriver:
    return AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"]))


async def install() -> None:
    await Queries(await connect()).install()


async def loader() -> Callable[[int], Awaitable[None]]:
    queries = Queries(await connect())

    async def enqueue(count: int) -> None:
        await queries.enqueue(["post"] * count, [body.encode() for body in bodies(count)], [0] * count)

    return enqueue


async def work() -> None:
    poster = Poster()
    pgq = PgQueuer(await connect())

    @pgq.entrypoint("post")
    async def post(job: Job) -> None:
        assert job.payload is not None
        await poster.post(job.id, job.payload)

    await pgq.run(batch_size=BATCH, max_concurrent_tasks=CONCURRENCY)


run(install, loader, work)
