"""Statements that are called wrongly: defects of this package, or of who uses its Database."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class BindingError(PgSagaError, TypeError):
    """The values given to a statement aren't those that its header names."""

    statement: str
    problem: str

    def __str__(self) -> str:
        return (
            f"statement {self.statement}: {self.problem}. "
            "The line `-- params:` of its header names the parameters"
        )


@dataclass(kw_only=True, eq=False)
class TooManyRowsError(PgSagaError):
    """A statement that gives one row at most gave more."""

    statement: str
    rows: int

    def __str__(self) -> str:
        return (
            f"statement {self.statement} gave {self.rows} rows instead of one or none. "
            "Call fetch for all of them, or narrow it down"
        )


@dataclass(kw_only=True, eq=False)
class TransactionEndedError(PgSagaError):
    """Inside of a transaction of a Database somebody has sent COMMIT or ROLLBACK.

    What came before it is stored or dropped by itself, and isn't one with the rest.
    """

    def __str__(self) -> str:
        return (
            "the transaction was ended in it, by COMMIT or ROLLBACK, so that what was written in "
            "it isn't stored as one. Leave its end to the Database; for a part that may be undone "
            "use `async with conn.transaction()`"
        )
