"""Every error that langgraph_pgsaga raises.

    PgSagaError
    ├── InvalidArgumentError          a config, thread id, filter or option that can't be used
    │   ├── UnknownOptionError        a keyword that isn't one of the options
    │   ├── MissingThreadIdError      a thread id is absent, None or empty
    │   ├── MissingTenantError        a call of no tenant, where each has to be of one
    │   ├── InvalidCursorError        a page's cursor that no listing gave
    │   └── InvalidFilterError        a filter of the store that can't be used
    ├── ThreadExistsError             the target of copy_thread already holds state
    ├── SessionExistsError            the thread that is to be created has a session already
    ├── MissingThreadError            the thread isn't there
    ├── ThreadDeletedError            the thread was deleted while a run of it went on
    ├── LeaseError                    a run, or whoever else, may not write to the thread
    │   ├── ThreadLeasedError         somebody else may
    │   └── LeaseLostError            it could, until somebody else did
    ├── MissingCheckpointError       the thread has no checkpoint like the one asked for
    │   └── CheckpointDeletedError    it had, when it was read
    ├── NameTakenError                another checkpoint of the thread has the name
    ├── TakeoverError                 a thread can't be taken over from another saver
    │   ├── ThreadDivergedError       here and there it went on, each its own way
    │   ├── TakeoverMismatchError     a checkpoint isn't what the other saver has
    │   └── UnreadableThreadError     the other saver can't read it
    ├── EventError                    events weren't appended, or can't be read
    │   ├── VersionConflictError      the aggregate has another version than expected
    │   ├── MissingVersionError       a snapshot is of a version that isn't there
    │   ├── EventIdConflictError      another event, or other content, has the id
    │   ├── ConditionFailedError      an event came that the condition speaks of
    │   ├── EventsNotAppendedError    those of callbacks wait, for too long
    │   ├── AmbiguousAggregateError   an id without a type, and several types have it
    │   ├── MissingConsumerError      there is no consumer of this name
    │   ├── ConsumerConflictError     there is one, and it is another
    │   ├── ProjectionBehindError     it can't take another's place yet
    │   ├── MissingDeadLetterError    no aggregate waits for this event
    │   ├── MasterKeyError            personal data needs another master key
    │   └── BrokenSealError           the log isn't as it was sealed
    ├── VectorTypeError               the store's vectors are of another type or length
    ├── ItemConflictError             an item of the store has another version than expected
    ├── MissingMemoryError            there is no such live memory
    ├── MissingVectorsError           the server has no pgvector, or no table of vectors
    ├── EmbeddingError                what an embedding function gave can't be used
    │   └── DimensionsError           a vector has other dimensions than are expected
    ├── BindingError                  a statement got other values than its header names
    ├── TooManyRowsError              a statement for one row gave several
    ├── TransactionEndedError         COMMIT or ROLLBACK was sent in a transaction of ours
    ├── ClosedError                   the database object was closed
    ├── CopyError                     a saver or database is to be pickled or copied
    ├── BlockingCallError             a sync call from the loop that would have to answer it
    ├── ConnectionSetupError          on_connect failed for a new connection
    ├── ServerError                   the server refused a statement (sqlstate)
    │   ├── LockTimeoutError          somebody else held a lock for too long, and who
    │   ├── StatementTimeoutError     it took too long, or was cancelled
    │   ├── ReadOnlyServerError       a standby, or a database set to take no writes
    │   └── ServerConnectionError     the server can't be reached, or went away
    │       ├── NoAnswerError         the server or the network stood still
    │       ├── LockLostError         the connection that kept others out went away
    │       ├── AuthenticationError   wrong user or password
    │       ├── MissingDatabaseError  the database doesn't exist
    │       └── PoolTimeoutError      no connection became free in time
    ├── MigrationError
    │   ├── MissingMigrationsError    the tables aren't there yet
    │   ├── MissingCitusError         the database has nothing that distributes tables
    │   ├── ChangedMigrationError     an applied file's text is no longer the same
    │   ├── UnknownMigrationError     the database has a migration this package doesn't
    │   └── OtherTablesError          another schema of the database has the tables
    ├── SerializationError
    │   ├── UnstorableValueError      refused when written: it couldn't be loaded again
    │   └── UnloadableValueError      a stored value may not, or can't, be loaded, and where it is
    │       ├── BlockedTypeError      its type isn't allowed
    │       ├── MissingTypeError      its type's module or name isn't there
    │       ├── ChangedClassError     its class has changed since, and no longer fits
    │       └── CorruptValueError     its bytes can't be decoded
    │           ├── CorruptSessionError  a number that its rows are counted by can't be right
    │           └── EncryptedValueError  they are encrypted, and there is no key
    ├── ClaimLostError                a row is somebody else's to work at now
    ├── UnfinishedClaimError          a job returned and left its row claimed
    ├── WorkerRunningError            a worker is begun a second time
    ├── StepError                     what belongs to a step of a run can't be done
    │   ├── NoStepError               no node is running, or its saver stores no such steps
    │   ├── StepEndedError            the node's attempt has ended
    │   └── StepNotStoredError        its checkpoint isn't stored
    └── EmbeddedServerError           the development server can't be used

Messages name what was wrong, with the value (of a long one a part), and what to do. They
never hold a password or a payload. Every error can be pickled.
"""

from langgraph_pgsaga.errors.consumers import (
    ConsumerConflictError,
    MissingConsumerError,
    MissingDeadLetterError,
    ProjectionBehindError,
)
from langgraph_pgsaga.errors.copies import copy_of
from langgraph_pgsaga.errors.embedded import EmbeddedServerError
from langgraph_pgsaga.errors.events import (
    AmbiguousAggregateError,
    BrokenSealError,
    ConditionFailedError,
    EventError,
    EventIdConflictError,
    EventsNotAppendedError,
    MasterKeyError,
    MissingVersionError,
    VersionConflictError,
)
from langgraph_pgsaga.errors.memory import (
    DimensionsError,
    EmbeddingError,
    InvalidFilterError,
    ItemConflictError,
    MissingMemoryError,
    MissingVectorsError,
    VectorTypeError,
)
from langgraph_pgsaga.errors.migrations import (
    ChangedMigrationError,
    MigrationError,
    MissingCitusError,
    MissingMigrationsError,
    OtherTablesError,
    UnknownMigrationError,
)
from langgraph_pgsaga.errors.root import (
    BlockingCallError,
    ClosedError,
    CopyError,
    InvalidArgumentError,
    InvalidCursorError,
    MissingTenantError,
    MissingThreadIdError,
    PgSagaError,
    UnknownOptionError,
)
from langgraph_pgsaga.errors.server import (
    AuthenticationError,
    ConnectionSetupError,
    LockLostError,
    LockTimeoutError,
    MissingDatabaseError,
    NoAnswerError,
    PoolTimeoutError,
    ReadOnlyServerError,
    ServerConnectionError,
    ServerError,
    StatementTimeoutError,
)
from langgraph_pgsaga.errors.statements import (
    BindingError,
    TooManyRowsError,
    TransactionEndedError,
)
from langgraph_pgsaga.errors.steps import (
    NoStepError,
    StepEndedError,
    StepError,
    StepNotStoredError,
)
from langgraph_pgsaga.errors.takeover import (
    TakeoverError,
    TakeoverMismatchError,
    ThreadDivergedError,
    UnreadableThreadError,
)
from langgraph_pgsaga.errors.threads import (
    CheckpointDeletedError,
    LeaseError,
    LeaseLostError,
    MissingCheckpointError,
    MissingThreadError,
    NameTakenError,
    SessionExistsError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadLeasedError,
)
from langgraph_pgsaga.errors.values import (
    BlockedTypeError,
    ChangedClassError,
    CorruptSessionError,
    CorruptValueError,
    EncryptedValueError,
    MissingTypeError,
    SerializationError,
    UnloadableValueError,
    UnstorableValueError,
)
from langgraph_pgsaga.errors.work import (
    ClaimLostError,
    UnfinishedClaimError,
    WorkerRunningError,
)

__all__ = [
    "AmbiguousAggregateError",
    "AuthenticationError",
    "BindingError",
    "BlockedTypeError",
    "BlockingCallError",
    "BrokenSealError",
    "ChangedClassError",
    "ChangedMigrationError",
    "CheckpointDeletedError",
    "ClaimLostError",
    "ClosedError",
    "ConditionFailedError",
    "ConnectionSetupError",
    "ConsumerConflictError",
    "CopyError",
    "CorruptSessionError",
    "CorruptValueError",
    "DimensionsError",
    "EmbeddedServerError",
    "EmbeddingError",
    "EncryptedValueError",
    "EventError",
    "EventIdConflictError",
    "EventsNotAppendedError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "InvalidFilterError",
    "ItemConflictError",
    "LeaseError",
    "LeaseLostError",
    "LockLostError",
    "LockTimeoutError",
    "MasterKeyError",
    "MigrationError",
    "MissingCheckpointError",
    "MissingCitusError",
    "MissingConsumerError",
    "MissingDatabaseError",
    "MissingDeadLetterError",
    "MissingMemoryError",
    "MissingMigrationsError",
    "MissingTenantError",
    "MissingThreadError",
    "MissingThreadIdError",
    "MissingTypeError",
    "MissingVectorsError",
    "MissingVersionError",
    "NameTakenError",
    "NoAnswerError",
    "NoStepError",
    "OtherTablesError",
    "PgSagaError",
    "PoolTimeoutError",
    "ProjectionBehindError",
    "ReadOnlyServerError",
    "SerializationError",
    "ServerConnectionError",
    "ServerError",
    "SessionExistsError",
    "StatementTimeoutError",
    "StepEndedError",
    "StepError",
    "StepNotStoredError",
    "TakeoverError",
    "TakeoverMismatchError",
    "ThreadDeletedError",
    "ThreadDivergedError",
    "ThreadExistsError",
    "ThreadLeasedError",
    "TooManyRowsError",
    "TransactionEndedError",
    "UnfinishedClaimError",
    "UnknownMigrationError",
    "UnknownOptionError",
    "UnloadableValueError",
    "UnreadableThreadError",
    "UnstorableValueError",
    "VectorTypeError",
    "VersionConflictError",
    "WorkerRunningError",
    "copy_of",
]
