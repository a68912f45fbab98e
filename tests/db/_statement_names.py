"""A process that prints the names of its prepared statements: `_statement_names.py DSN`."""

import asyncio
import sys
from typing import Any

from langgraph_pgsaga import PostgresSaver


async def main(dsn: str) -> None:
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await saver.aget_tuple({"configurable": {"thread_id": "t"}})

        async def names(conn: Any) -> str:
            found = await conn.fetchval("select string_agg(name, ' ') from pg_prepared_statements")
            return str(found)

        print(await saver.db.run(names))


asyncio.run(main(sys.argv[1]))
