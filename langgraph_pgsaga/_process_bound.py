"""What lives in one process, and is no value."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from langgraph_pgsaga.errors import CopyError


class ProcessBound:
    """An object with connections, threads or processes: neither copied nor pickled."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """What `copy` and `pickle` ask for.

        Raises:
            CopyError: always.
        """
        raise CopyError(what=type(self).__name__)
