"""What runs in the background, and what it knows of the run that it belongs to."""

from langgraph_pgsaga.work.claims import Claim, Claims, ClaimTable
from langgraph_pgsaga.work.error_text import described
from langgraph_pgsaga.work.health import serve_health
from langgraph_pgsaga.work.job import Job, Periodic
from langgraph_pgsaga.work.members import WorkerInfo, list_workers
from langgraph_pgsaga.work.metrics import WorkerMetrics
from langgraph_pgsaga.work.notifier import Notifier
from langgraph_pgsaga.work.retry import Retry, delay_after
from langgraph_pgsaga.work.run_context import RunContext
from langgraph_pgsaga.work.step import Step, has_step, this_step, written
from langgraph_pgsaga.work.step_mark import Level, Rider, StepKeeper, StepMark, enter_subgraph
from langgraph_pgsaga.work.told import (
    NewEvent,
    RecordsSteps,
    StepRecorder,
    ToldCall,
    ToldError,
    ToldMessage,
    ToldPut,
)
from langgraph_pgsaga.work.waiting import Watch
from langgraph_pgsaga.work.when_stored import step_is_stored, stored_step
from langgraph_pgsaga.work.worker import JobStatus, Worker, WorkerStatus

__all__ = [
    "Claim",
    "ClaimTable",
    "Claims",
    "Job",
    "JobStatus",
    "Level",
    "NewEvent",
    "Notifier",
    "Periodic",
    "RecordsSteps",
    "Retry",
    "Rider",
    "RunContext",
    "Step",
    "StepKeeper",
    "StepMark",
    "StepRecorder",
    "ToldCall",
    "ToldError",
    "ToldMessage",
    "ToldPut",
    "Watch",
    "Worker",
    "WorkerInfo",
    "WorkerMetrics",
    "WorkerStatus",
    "delay_after",
    "described",
    "enter_subgraph",
    "has_step",
    "list_workers",
    "serve_health",
    "step_is_stored",
    "stored_step",
    "this_step",
    "written",
]
