"""A process whose sync call waits for a lock until Ctrl-C, and that then goes on: DSN."""

import sys

from langgraph_pgsaga import PostgresSaver


def main(dsn: str) -> None:
    with PostgresSaver.from_conn_string(dsn, max_size=1) as saver:
        print("ready", flush=True)
        try:
            saver.delete_thread("locked")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        assert saver.get_tuple({"configurable": {"thread_id": "other"}}) is None
        print("goes on", flush=True)


main(sys.argv[1])
