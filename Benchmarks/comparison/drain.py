"""How fast a contestant's worker empties a full queue, and what that costs."""

from dataclasses import dataclass

from .contestants import Contestant
from .processes import Failure, wait_until
from .rig import Rig
from .servers import receiver

BODY_BYTES = 536
# A drain that takes longer has come to a halt.
LIMIT_SECONDS = 180


@dataclass
class Drained:
    # Jobs a second, from the first arrival at the receiver to the last.
    per_second: float
    worker_microseconds: float
    postgres_microseconds: float
    duplicates: int


def drain(rig: Rig, contestant: Contestant, jobs: int) -> Drained:
    """Throws unless every job arrived, whole, and was recorded as delivered."""
    with receiver(rig.directory) as nginx, rig.stage(contestant, nginx.url) as stage:
        with stage.loader() as loader:
            loader.enqueue(jobs)
        stage.worker_commits(rig.synchronous)
        # Fresh statistics, as autovacuum would have made them, and no preload left to write while others are measured.
        rig.postgres.execute("ANALYZE", stage.database)
        rig.postgres.execute("CHECKPOINT")
        with stage.worker() as worker:
            if not wait_until(lambda: nginx.count() > 0, 30, worker, nginx.process):
                raise Failure(f"{contestant.name} delivered nothing within 30 s:\n{worker.tail()}")
            # What a worker spends on starting is not counted.
            first, spent = nginx.count(), (worker.cpu_seconds, rig.postgres.process.cpu_seconds)
            arrived = wait_until(lambda: nginx.count() >= jobs, LIMIT_SECONDS, worker, nginx.process)
            recorded = arrived and wait_until(lambda: stage.unrecorded(jobs) <= 0, 30, worker)
            counted = max(1, nginx.count() - first)
            worker_spent = (worker.cpu_seconds - spent[0]) * 1e6 / counted
            postgres_spent = (rig.postgres.process.cpu_seconds - spent[1]) * 1e6 / counted
            if not arrived:
                raise Failure(f"{contestant.name} delivered {nginx.count()} of {jobs}:\n{worker.tail()}")
            if not recorded:
                left = stage.unrecorded(jobs)
                raise Failure(f"{contestant.name} has not recorded {left} of {jobs} deliveries:\n{worker.tail()}")
        arrivals = list(nginx.arrivals())
    missing = jobs - len({message_id for _, _, message_id in arrivals})
    if missing or any(length != BODY_BYTES for _, length, _ in arrivals):
        lengths = sorted({length for _, length, _ in arrivals})
        raise Failure(f"{contestant.name}: {missing} of {jobs} jobs missing; bodies of {lengths}, not {BODY_BYTES} bytes")
    return Drained(
        per_second=len(arrivals) / (arrivals[-1][0] - arrivals[0][0]),
        worker_microseconds=worker_spent,
        postgres_microseconds=postgres_spent,
        duplicates=len(arrivals) - jobs,
    )
