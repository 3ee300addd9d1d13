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
    ProcessDied,
    QMLError,
    QueueFull,
    RemoteError,
    SchemaMismatch,
    StorageClosed,
    StorageError,
    StorageUnavailable,
    UnknownMethod,
    UnknownOption,
)
from qml_nb.job import TRANSITIONS, Job, JobState
from qml_nb.retry import RetryPolicy
from qml_nb.server import BackgroundJobServer, WorkerPool, WorkerRegistry
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
    "JobFailed",
    "JobNotFound",
    "JobState",
    "JobTimeout",
    "MemoryConfig",
    "MemoryStorage",
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
    "RetryPolicy",
    "SchemaMismatch",
    "ServerConfig",
    "ServerInfo",
    "Storage",
    "StorageClosed",
    "StorageError",
    "StorageUnavailable",
    "UnknownMethod",
    "UnknownOption",
    "WorkerPool",
    "WorkerRegistry",
    "open_storage",
]
