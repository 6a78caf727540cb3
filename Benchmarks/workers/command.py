"""The command line that every worker script shares: install | load | work."""

import sys
from collections.abc import Awaitable, Callable

import uvloop

# Jobs enqueued by one call, in one transaction.
CHUNK = 1000


def run(
    install: Callable[[], Awaitable[None]],
    loader: Callable[[], Awaitable[Callable[[int], Awaitable[None]]]],
    work: Callable[[], Awaitable[None]],
) -> None:
    """`install` makes the schema, `work` works until it is killed.

    `load` reads numbers from standard input, enqueues as many jobs and says so, line by line.
    """

    async def load() -> None:
        enqueue = await loader()
        for line in sys.stdin:
            count = int(line)
            for first in range(0, count, CHUNK):
                await enqueue(min(CHUNK, count - first))
            print(count, flush=True)

    commands = {"install": install, "load": load, "work": work}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"usage: {sys.argv[0]} {' | '.join(commands)}")
    uvloop.run(commands[sys.argv[1]]())
