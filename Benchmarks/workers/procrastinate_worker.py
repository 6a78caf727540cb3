"""procrastinate: its own asynchronous connector with a pool, jobs deferred in batches, and one asynchronous worker."""

import os
import sys
from collections.abc import Awaitable, Callable

from command import run
from procrastinate import App, JobContext, PsycopgConnector
from webhook import Poster, bodies

CONCURRENCY = int(os.environ.get("PROCRASTINATE_CONCURRENCY", "50"))
# A connection a job; who only enqueues needs none of them.
POOL = CONCURRENCY + 2 if sys.argv[1:] == ["work"] else 2

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL))
poster = Poster()


@app.task(name="post", pass_context=True)
async def post(context: JobContext, body: str) -> None:
    await poster.post(context.job.id, body.encode())


async def install() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def loader() -> Callable[[int], Awaitable[None]]:
    await app.open_async()

    async def enqueue(count: int) -> None:
        await post.batch_defer_async(*({"body": body} for body in bodies(count)))

    return enqueue


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs=os.environ.get("PROCRASTINATE_DELETE", "never"))


run(install, loader, work)
