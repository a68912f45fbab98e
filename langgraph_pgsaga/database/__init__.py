"""PostgreSQL as every system sees it: connections, transactions, statements, the tables."""

from langgraph_pgsaga.database.connection import (
    LONG,
    NO_LIMITS,
    Connection,
    Limits,
    check_in_transaction,
)
from langgraph_pgsaga.database.database import Database
from langgraph_pgsaga.database.dsn import parse_dsn
from langgraph_pgsaga.database.migrations import (
    Migration,
    MigrationStatus,
    load_migrations,
    migrate,
    migration_status,
    pending_sql,
    table_schemas,
)
from langgraph_pgsaga.database.options import DatabaseOptions
from langgraph_pgsaga.database.packed import Packed
from langgraph_pgsaga.database.portal import Portal
from langgraph_pgsaga.database.statements import (
    BoundStatement,
    Statement,
    load_statements,
    quote_identifier,
    render,
)

__all__ = [
    "LONG",
    "NO_LIMITS",
    "BoundStatement",
    "Connection",
    "Database",
    "DatabaseOptions",
    "Limits",
    "Migration",
    "MigrationStatus",
    "Packed",
    "Portal",
    "Statement",
    "check_in_transaction",
    "load_migrations",
    "load_statements",
    "migrate",
    "migration_status",
    "parse_dsn",
    "pending_sql",
    "quote_identifier",
    "render",
    "table_schemas",
]
