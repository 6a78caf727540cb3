"""python -m comparison: see --help, and README.md beside this folder."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from . import report
from .contestants import MARTLET, PEERS, Contestant
from .drain import Drained, drain
from .pinned import Pinned, pinned
from .processes import Failure
from .rig import Rig
from .servers import postgres
from .trial import verify_signatures


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--martlet", type=Path, required=True, help="the executable")
    parser.add_argument("--peers", default=",".join(names), help=f"which of {', '.join(names)}; separated by commas")
    parser.add_argument("--rounds", type=int, default=5, help="how often everybody drains, in turns")
    parser.add_argument("--pinned", type=int, metavar="SECONDS", help="instead: one run each beside a transaction that holds xmin")
    parser.add_argument("--synchronous", action="store_true", help="every commit waits for the disk, Martlet's too")
    parser.add_argument("--client", choices=["lean", "aiohttp"], default="aiohttp", help="what the peers post with")
    parser.add_argument("--scale", type=float, default=1.0, help="the jobs of a drain, as a share of what contestants.py says")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the jobs: whether it works, not how fast")
    parser.add_argument("--output", type=Path, help="write the report here, too")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.scale = 1, 0.1
    unknown = set(chosen.peers.split(",")) - set(names)
    if unknown:
        parser.error(f"there is no such peer: {', '.join(sorted(unknown))}")
    if chosen.rounds < 1 or (chosen.pinned is not None and chosen.pinned < 6) or not 0.01 <= chosen.scale <= 100:
        parser.error("--rounds must be at least 1, --pinned at least 6 seconds, --scale from 0.01 to 100")
    if not os.access(chosen.martlet, os.X_OK):
        parser.error(f"--martlet: {chosen.martlet} is not an executable")
    return chosen


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def compare(chosen: argparse.Namespace, directory: Path) -> str:
    contestants = [MARTLET, *(peer for peer in PEERS if peer.name in chosen.peers.split(","))]
    with postgres(directory) as server:
        rig = Rig(directory, server, chosen.martlet.resolve(), chosen.synchronous, chosen.client)
        versions = {}
        for contestant in contestants:
            say(f"{contestant.name}: are its deliveries signed?")
            versions[contestant.name] = verify_signatures(rig, contestant)
        conditions = report.conditions(server, chosen.synchronous, chosen.client)
        figures = pin_all(rig, contestants, chosen.pinned) if chosen.pinned else drain_all(rig, contestants, chosen)
    return "\n\n".join([conditions, figures, report.settings(contestants, versions)])


def drain_all(rig: Rig, contestants: list[Contestant], chosen: argparse.Namespace) -> str:
    jobs = {each.name: int(each.jobs * chosen.scale) for each in contestants}
    rounds: list[dict[str, Drained]] = []
    for number in range(chosen.rounds):
        first = number % len(contestants)
        rounds.append({})
        # A machine that slows down in the middle shall not always hit the same one.
        for contestant in contestants[first:] + contestants[:first]:
            result = rounds[-1][contestant.name] = drain(rig, contestant, jobs[contestant.name])
            say(
                f"round {number + 1}: {contestant.name} {result.per_second:,.0f}/s, worker {result.worker_microseconds:.0f} "
                f"and PostgreSQL {result.postgres_microseconds:.0f} µs each"
            )
    return report.drains(rounds, contestants, jobs)


def pin_all(rig: Rig, contestants: list[Contestant], seconds: int) -> str:
    results: dict[str, Pinned] = {}
    for contestant in contestants:
        result = results[contestant.name] = pinned(rig, contestant, seconds)
        say(f"{contestant.name}: {result.first_per_second:,.0f}/s, in the end {result.last_per_second:,.0f}/s")
    return report.pins(results, seconds)


def main() -> None:
    chosen = arguments()
    # Whoever stops us stops the servers, too: sys.exit leaves every `with`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="martlet-peers-"))
    # PostgreSQL and nginx may run as somebody else and have to get at their folders in it.
    directory.chmod(0o755)
    try:
        text = compare(chosen, directory)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n")


main()
