"""qml_nb: a job queue whose tuning can be seen. The public names."""

from qml_nb.config import MemoryConfig, PostgresConfig, QueueConfig, RedisConfig, ServerConfig
from qml_nb.errors import (
    CapacityExceeded,
    InvalidJob,
    InvalidStateTransition,
    InvalidValue,
    JobFailed,
    JobNotFound,
    JobTimeout,
    NextUsedTwice,
    OutsideJob,
    ProcessDied,
    QMLError,
    QueueFull,
    RemoteError,
    Retry,
    SchemaMismatch,
    ServerDied,
    StorageClosed,
    StorageError,
    StorageUnavailable,
    UnknownMethod,
    UnknownOption,
)
from qml_nb.job import Job
from qml_nb.retry import RetryPolicy
from qml_nb.server import BackgroundJobServer, JobContext, WorkerPool, WorkerRegistry, job_context
from qml_nb.states import TRANSITIONS, JobState
from qml_nb.storage import MemoryStorage, PostgresStorage, RedisStorage, open_storage
from qml_nb.storage.backend import Recurring, ServerInfo
from qml_nb.storage.storage import Storage

__all__ = [
    "TRANSITIONS",
    "BackgroundJobServer",
    "CapacityExceeded",
    "InvalidJob",
    "InvalidStateTransition",
    "InvalidValue",
    "Job",
    "JobContext",
    "JobFailed",
    "JobNotFound",
    "JobState",
    "JobTimeout",
    "MemoryConfig",
    "MemoryStorage",
    "NextUsedTwice",
    "OutsideJob",
    "PostgresConfig",
    "PostgresStorage",
    "ProcessDied",
    "QMLError",
    "QueueConfig",
    "QueueFull",
    "Recurring",
    "RedisConfig",
    "RedisStorage",
    "RemoteError",
    "Retry",
    "RetryPolicy",
    "SchemaMismatch",
    "ServerConfig",
    "ServerDied",
    "ServerInfo",
    "Storage",
    "StorageClosed",
    "StorageError",
    "StorageUnavailable",
    "UnknownMethod",
    "UnknownOption",
    "WorkerPool",
    "WorkerRegistry",
    "job_context",
    "open_storage",
]
