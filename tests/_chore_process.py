"""A worker in a process of its own: `_chore_process.py DSN LEASE_SECONDS FOLDER [blind]`.

Of each chore it says `begun ID` and waits until the file `go` is in the folder, then writes the
outcome, and says `done ID` or why not. With `blind` it doesn't look at its own clock before it
writes: the fence alone decides. SIGTERM has it stop.
"""

import asyncio
import signal
import sys
from pathlib import Path

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import ClaimLostError
from langgraph_pgsaga.work import Claim, Worker
from tests._chores import FINISH, Chores


async def main(dsn: str, lease_seconds: str, folder: str, mode: str = "") -> None:
    go = Path(folder) / "go"
    async with Database(dsn) as db:

        async def work(claim: Claim) -> None:
            print("begun", claim.row["chore_id"], flush=True)
            try:
                while not go.exists():
                    try:
                        await asyncio.sleep(0.005)
                    except asyncio.CancelledError:
                        if not mode:
                            raise
                if mode:
                    bound = FINISH.bind(
                        **claim.key, fence=claim.fence, claimed_by=claim._claims.owner
                    )
                    print("wrote", len(await db.fetch(bound)), flush=True)
                claim.check()
            except (ClaimLostError, asyncio.CancelledError) as error:
                print("lost", type(error).__name__, flush=True)
                raise

        worker = Worker(
            db, Chores(work, concurrency=3), lease_seconds=float(lease_seconds), grace_seconds=1
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()
        print("ended", flush=True)


asyncio.run(main(*sys.argv[1:]))
