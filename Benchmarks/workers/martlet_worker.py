"""Martlet as an operator runs it: one endpoint, signed, history, retries and circuit breaker at their defaults."""

import os
import subprocess
from collections.abc import Awaitable, Callable

import psycopg
from command import run
from webhook import BODY_BYTES, data

IN_FLIGHT = int(os.environ.get("MARTLET_IN_FLIGHT", "64"))
# What the format `standard` puts around the payload: {"type":"order.created","timestamp":"…","data":} with 27 bytes of time.
ENVELOPE_BYTES = 74


async def connect() -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)


async def install() -> None:
    command = [os.environ["MARTLET"], "migrate", "--database-url", os.environ["DATABASE_URL"]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    async with await connect() as connection:
        await connection.execute(
            "SELECT outbox.add_endpoint(%s, secret => %s, max_in_flight => %s)",
            (os.environ["WEBHOOK_URL"], os.environ["WEBHOOK_SECRET"], IN_FLIGHT),
        )


async def loader() -> Callable[[int], Awaitable[None]]:
    connection = await connect()

    async def enqueue(count: int) -> None:
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY outbox.event (type, payload) FROM STDIN") as copy:
                for n in range(count):
                    await copy.write_row(("order.created", data(n, BODY_BYTES - ENVELOPE_BYTES)))

    return enqueue


async def work() -> None:
    options = "--allow-http --allow-network 127.0.0.0/8 --log-level warning".split()
    if os.environ.get("COMMITS") == "synchronous":
        options.append("--synchronous-commit")
    martlet = os.environ["MARTLET"]
    os.execv(martlet, [martlet, "dispatch", "--database-url", os.environ["DATABASE_URL"], *options])


run(install, loader, work)
