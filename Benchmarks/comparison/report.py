"""The figures as Markdown."""

import os
import platform
import statistics
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from .contestants import MARTLET, Contestant
from .drain import BODY_BYTES, Drained
from .pinned import Pinned
from .servers import POSTGRES_SETTINGS, Postgres, nginx_version


CLIENTS = {"aiohttp": f"aiohttp {metadata.version('aiohttp')}", "lean": "a client of forty lines (workers/webhook.py)"}


def _spread(values: Iterable[float], digits: int = 0) -> str:
    """Median (lowest–highest)."""
    ordered = sorted(values)
    median = f"{statistics.median(ordered):,.{digits}f}"
    return median if len(ordered) == 1 else f"{median} ({ordered[0]:,.{digits}f}–{ordered[-1]:,.{digits}f})"


def conditions(postgres: Postgres, synchronous: bool, client: str) -> str:
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    settings = ", ".join(f"{name} {value}" for name, value in POSTGRES_SETTINGS.items())
    commits = "synchronous" if synchronous else "asynchronous"
    return (
        f"{os.cpu_count()} cores ({model}), load {os.getloadavg()[0]:.1f}, Linux {platform.release()}, "
        f"PostgreSQL {str(postgres.value('SHOW server_version')).split()[0]} (fsync on, {settings}, otherwise its "
        f"defaults), nginx {nginx_version()}, Python {platform.python_version()}. Bodies of {BODY_BYTES} B, HMAC-SHA256, "
        f"one worker process each. Workers' commits {commits}, everybody's; those that enqueue synchronous. "
        f"The peers post with {CLIENTS[client]}."
    )


def drains(rounds: list[dict[str, Drained]], contestants: list[Contestant], jobs: dict[str, int]) -> str:
    lines = [
        f"Rounds: {len(rounds)}; median (lowest–highest). Ratio: Martlet's rate to the peer's in the same round.",
        "",
        "| | deliveries/s | ratio | worker CPU | PostgreSQL CPU | jobs | duplicates |",
        "|---|---|---|---|---|---|---|",
    ]
    for contestant in contestants:
        name = contestant.name
        runs = [done[name] for done in rounds]
        ratio = _spread([done[MARTLET.name].per_second / done[name].per_second for done in rounds], 2)
        lines.append(
            f"| {name} | {_spread(run.per_second for run in runs)} | {'' if contestant == MARTLET else ratio} "
            f"| {_spread((run.worker_microseconds for run in runs))} µs "
            f"| {_spread((run.postgres_microseconds for run in runs))} µs "
            f"| {jobs[name]:,} | {sum(run.duplicates for run in runs)} |"
        )
    return "\n".join(lines)


def pins(results: dict[str, Pinned], seconds: int) -> str:
    window = min(20.0, seconds / 3)
    lines = [
        f"{seconds} s beside a transaction that holds its snapshot: rate of the first and last {window:.0f} s.",
        "",
        "| | first | last | last / first | deliveries | dead rows each |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        lines.append(
            f"| {name} | {result.first_per_second:,.0f}/s | {result.last_per_second:,.0f}/s | {result.ratio:.2f} "
            f"| {result.delivered:,}{'' if result.always_backlog else ', at times none waiting'} "
            f"| {result.dead_rows_per_delivery:.2f} |"
        )
    return "\n".join(lines)


def settings(contestants: list[Contestant], versions: dict[str, str]) -> str:
    lines = ["| | version | settings |", "|---|---|---|"]
    lines += [f"| {each.name} | {versions[each.name]} | {each.settings} |" for each in contestants]
    return "\n".join(lines)
