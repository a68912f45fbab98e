"""this_step(): what is written with it is stored with the result of the running node."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga._arguments import required_text
from langgraph_pgsaga.database import Connection, Database
from langgraph_pgsaga.errors import InvalidArgumentError, NoStepError, StepEndedError
from langgraph_pgsaga.work.step_mark import FoundStep, Rider, StepMark, find_step

T = TypeVar("T")


class Step:
    """The commit of a node's result, to be passed as `conn=`. `this_step()` gives it.

    What is passed it returns at once, with what is known by then, and is done in the
    transaction that stores the result: both are there, once, or neither is. Nothing of it is
    done where the node fails, asks (`interrupt`) or is cancelled. What fails in that
    transaction undoes all of it, and ends the run.
    """

    __slots__ = ("_db", "_mark")

    def __init__(self, db: Database, mark: StepMark) -> None:
        self._db = db
        self._mark = mark

    def sql(self, query: str, *args: Any) -> None:
        """Has a statement of the application's own executed with the step.

        The arguments are as they are now; the rows it gives are nobody's.

        Raises:
            StepEndedError: the node's attempt has ended.
        """
        required_text("query", query)
        taken = copy.deepcopy(args)

        async def rider(conn: Connection) -> None:
            await conn.fetch(query, *taken)

        self._mark.add(rider)

    def at_commit(self, rider: Rider, *, db: Database) -> None:
        """Has `rider(connection)` done with the step, in the order of these calls.

        It is called when the node has ended, perhaps more than once, of which one counts: so it
        holds copies of what it was given, and does nothing but by the connection.

        Args:
            db: the database that it is for.

        Raises:
            NoStepError: the step is stored in another database.
            StepEndedError: the node's attempt has ended.
        """
        if not db.has_tables_of(self._db):
            problem = (
                f"this step is stored in {self._db!r}, which can't commit what is in {db!r}. Make "
                "both of one Database, as by saver.db; or write before, by a key that makes the "
                "second time do nothing"
            )
            raise NoStepError(problem=problem)
        self._mark.add(rider)

    def __repr__(self) -> str:
        return f"<the step of node {self._mark.node!r}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        problem = (
            "this_step() isn't taken here: this call needs the answer of a connection. Pass one "
            "of db.transaction(), or, to write with the step, use this_step().sql(...)"
        )
        raise InvalidArgumentError(argument="conn", problem=problem)


def this_step() -> Step:
    """The commit of the running node's result, as `conn=` of what writes; it does no I/O.

    In a node, a `@task` or a tool, sync or async, in subgraphs, too; in each attempt anew.

    Raises:
        NoStepError: no node is running, or its graph's saver isn't a PostgresSaver.
        StepEndedError: the attempt has ended already.
    """
    found = find_step("this_step")
    mark = _mark_of(found)
    if mark is None:
        mark = StepMark(
            found.levels,
            callers=found.callers,
            called_by=found.called_by,
            node=found.node,
            control=found.control,
            is_stored_at_exit=found.is_stored_at_exit,
        )
        for level in found.levels:
            level.send([(_langgraph.NO_WRITES, mark)])
    if not all(level.goes_on(mark) for level in mark.levels):
        raise StepEndedError(node=found.node)
    found.keeper.open(mark)
    return Step(found.keeper.db, mark)


def has_step(db: Database) -> bool:
    """Whether `this_step()` can be called here, and commits what is in that database."""
    try:
        found = find_step("this_step")
    except NoStepError:
        return False
    return db.has_tables_of(found.keeper.db)


def _mark_of(found: FoundStep) -> StepMark | None:
    """The one that this attempt has already."""
    own = found.levels[0]
    for _, value in tuple(own.writes):
        if type(value) is StepMark and value.levels[0].writes is own.writes:
            return value
    return None


async def written(
    conn: Connection | Step | None,
    db: Database,
    write: Callable[[Connection | None], Awaitable[T]],
    *,
    known: T,
) -> T:
    """The answer of `write(conn)`; given a Step `known`, and it is done with the step.

    For the methods of systems: `write` has been given all it needs as it was at the call.
    """
    if not isinstance(conn, Step):
        return await write(conn)
    conn.at_commit(write, db=db)
    return known
