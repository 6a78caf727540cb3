"""awa: queue storage, jobs enqueued by COPY, several claimers on the hot queue."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import awa
from command import run
from webhook import Poster, bodies

WORKERS = int(os.environ.get("AWA_WORKERS", "256"))
CLAIMERS = int(os.environ.get("AWA_CLAIMERS", "4"))
BATCH = int(os.environ.get("AWA_CLAIM_BATCH", "0")) or None


@dataclass
class Post:
    body: str


def connect() -> awa.AsyncClient:
    return awa.AsyncClient(os.environ["DATABASE_URL"], max_connections=int(os.environ.get("AWA_CONNECTIONS", "20")))


async def install() -> None:
    client = connect()
    await client.migrate()
    await client.install_queue_storage()


async def loader() -> Callable[[int], Awaitable[None]]:
    client = connect()

    async def enqueue(count: int) -> None:
        await client.enqueue_many_copy([Post(body) for body in bodies(count)], queue="webhooks")

    return enqueue


async def work() -> None:
    poster = Poster()
    client = connect()

    @client.task(Post, queue="webhooks")
    async def post(job: awa.Job) -> None:
        await poster.post(job.id, job.args.body.encode())

    queue = {"name": "webhooks", "max_workers": WORKERS, "claimers": CLAIMERS}
    if BATCH:
        queue["claim_batch_size"] = BATCH
    await client.start([queue], poll_interval_ms=int(os.environ.get("AWA_POLL", "200")))
    await asyncio.Event().wait()


run(install, loader, work)
