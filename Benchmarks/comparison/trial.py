"""Before anything is measured: that every contestant signs what it posts, as the receiver of Martlet's own verifies."""

import time

from .contestants import Contestant
from .processes import Child, Failure, wait_until
from .rig import SECRET, Rig
from .servers import free_port

JOBS = 20


def verify_signatures(rig: Rig, contestant: Contestant) -> str:
    """Delivers a few jobs to `martlet receive`. Returns the contestant's version; throws if one is not signed rightly."""
    port, log = free_port(), rig.directory / f"receive-{contestant.name}.log"
    arguments = [str(rig.martlet), "receive", "--port", str(port), "--secret", SECRET]
    with Child(arguments, log) as receive, rig.stage(contestant, f"http://127.0.0.1:{port}/hook") as stage:

        def said(word: str) -> int:
            return log.read_text().count(word)

        if not wait_until(lambda: said("listening on") > 0, 10, receive):
            raise Failure(f"martlet receive does not listen:\n{receive.tail()}")
        with stage.loader() as loader:
            loader.enqueue(JOBS)
        with stage.worker() as worker:
            enough = wait_until(lambda: said(" verified") >= JOBS, 30, receive, worker)
            time.sleep(0.1)
            if not enough or said(" verified") != JOBS or said("INVALID"):
                raise Failure(f"{contestant.name}: not {JOBS} verified deliveries:\n{receive.tail()}\n{worker.tail()}")
        return rig.version(stage)
