"""Horizon: an application's background jobs, on Redis or Valkey."""

from gravito.horizon._backoff import Exponential, Fixed, Listed
from gravito.horizon._batches import BatchStatus
from gravito.horizon._broker import Retention
from gravito.horizon._inject import inject
from gravito.horizon._sealing import new_key
from gravito.horizon.batch import Batch, BatchHandle
from gravito.horizon.call import Call, Pending
from gravito.horizon.chain import Chain, ChainHandle
from gravito.horizon.context import JobContext, current_job
from gravito.horizon.handle import JobHandle, JobStatus
from gravito.horizon.horizon import Horizon
from gravito.horizon.job import FunctionJob, Job, job
from gravito.horizon.middleware import Middleware
from gravito.horizon.options import Concurrency, JobOptions, Rate
from gravito.horizon.repository import Repository
from gravito.horizon.schedule import Schedule
from gravito.horizon.scheduler import Scheduler
from gravito.horizon.settings import HorizonSettings, QueueLimits
from gravito.horizon.worker import Tally, Worker, WorkerOptions

__all__ = [
    "Batch",
    "BatchHandle",
    "BatchStatus",
    "Call",
    "Chain",
    "ChainHandle",
    "Concurrency",
    "Exponential",
    "Fixed",
    "FunctionJob",
    "Horizon",
    "HorizonSettings",
    "Job",
    "JobContext",
    "JobHandle",
    "JobOptions",
    "JobStatus",
    "Listed",
    "Middleware",
    "Pending",
    "QueueLimits",
    "Rate",
    "Repository",
    "Retention",
    "Schedule",
    "Scheduler",
    "Tally",
    "Worker",
    "WorkerOptions",
    "current_job",
    "inject",
    "job",
    "new_key",
]
