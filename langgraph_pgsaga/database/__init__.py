"""PostgreSQL as every system sees it: connections, transactions, statements."""

from langgraph_pgsaga.database.begun import Begun, Done
from langgraph_pgsaga.database.database import Connection, Database
from langgraph_pgsaga.database.dsn import parse_dsn
from langgraph_pgsaga.database.portal import Portal
from langgraph_pgsaga.database.statements import (
    Statement,
    load_statements,
    quote_identifier,
    render,
)

__all__ = [
    "Begun",
    "Connection",
    "Database",
    "Done",
    "Portal",
    "Statement",
    "load_statements",
    "parse_dsn",
    "quote_identifier",
    "render",
]
