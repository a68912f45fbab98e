"""Moving to PostgresSaver: import_threads with downtime, ReadThroughSaver without."""

from langgraph_pgsaga.takeover.importing import import_threads
from langgraph_pgsaga.takeover.read_through import ReadThroughSaver
from langgraph_pgsaga.takeover.report import ImportProgress, ImportReport, ThreadReport

__all__ = [
    "ImportProgress",
    "ImportReport",
    "ReadThroughSaver",
    "ThreadReport",
    "import_threads",
]
