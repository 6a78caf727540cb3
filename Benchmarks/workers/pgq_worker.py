"""PgQ: a log read in batches, at its default settings for batch size. No history, no state per event: who crashes gets the
whole batch again. The ticker is a task of the worker instead of pgqd, a tick every 100 ms."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import asyncpg
from command import run
from webhook import Poster, bodies

CONCURRENCY = int(os.environ.get("PGQ_CONCURRENCY", "64"))
TICK_SECONDS = 0.1


async def connect() -> asyncpg.Connection:
    return await asyncpg.connect(os.environ["DATABASE_URL"])


async def install() -> None:
    connection = await connect()
    await connection.execute("CREATE EXTENSION pgq")
    await connection.fetchval("SELECT pgq.create_queue('webhooks')")
    await connection.fetchval("SELECT pgq.register_consumer('webhooks', 'poster')")


async def loader() -> Callable[[int], Awaitable[None]]:
    connection = await connect()

    async def enqueue(count: int) -> None:
        # PgQ's own way in, for many at once.
        await connection.execute(
            "SELECT count(pgq.insert_event('webhooks', 'post', body)) FROM unnest($1::text[]) body",
            list(bodies(count)),
        )

    return enqueue


async def tick() -> None:
    connection = await connect()
    while True:
        await connection.fetchval("SELECT pgq.ticker()")
        await asyncio.sleep(TICK_SECONDS)


async def consume() -> None:
    poster, connection = Poster(), await connect()
    while True:
        batch = await connection.fetchval("SELECT pgq.next_batch('webhooks', 'poster')")
        if batch is None:
            await asyncio.sleep(TICK_SECONDS / 4)
            continue
        events = await connection.fetch("SELECT ev_id, ev_data FROM pgq.get_batch_events($1)", batch)
        waiting = iter(events)

        async def post() -> None:
            for event in waiting:
                try:
                    await poster.post(event["ev_id"], event["ev_data"].encode())
                except (OSError, RuntimeError):
                    await connection.fetchval("SELECT pgq.event_retry($1, $2, 5)", batch, event["ev_id"])

        await asyncio.gather(*(post() for _ in range(CONCURRENCY)))
        await connection.fetchval("SELECT pgq.finish_batch($1)", batch)


async def work() -> None:
    await asyncio.gather(tick(), consume())


run(install, loader, work)
