"""AgentMemory for sync callers, made from `langgraph_pgsaga.memory` by `make docs`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TextIO
from uuid import UUID

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from langgraph_pgsaga.database import Database
from langgraph_pgsaga.memory import AgentMemory as AsyncAgentMemory
from langgraph_pgsaga.memory import (
    ConsolidationResult,
    Embed,
    EmbeddingProgress,
    ForgettingPolicy,
    ForgettingResult,
    ImportResult,
    Memory,
    MemoryOrder,
    MemoryPage,
    MemoryStore,
    MemoryType,
    Merge,
    NewMemory,
    Query,
    Recalled,
    Scorer,
    Scoring,
)
from langgraph_pgsaga.threads import ThreadId
from langgraph_pgsaga.work import Job, Step


class AgentMemory:
    """A tenant's memories in a database.

    `langgraph_pgsaga.memory.AgentMemory` for sync callers.
    """

    def __init__(
        self,
        db: Database,
        *,
        embed: Embed | None = None,
        dims: int | None = None,
        tenant: str | None = None,
        language: str = "english",
        vector_type: Literal["halfvec", "vector"] = "halfvec",
        model: str = "",
    ) -> None:
        self._async = AsyncAgentMemory(
            db,
            embed=embed,
            dims=dims,
            tenant=tenant,
            language=language,
            vector_type=vector_type,
            model=model,
        )
        self.db = self._async.db

    def setup(self) -> None:
        """Makes or updates the tables, as `Database.setup` does, and those of vectors where there
        is `embed`.

        Raises:
            MissingVectorsError: the server has no pgvector.
            InvalidArgumentError: it has no configuration of text search of this name.
        """
        self.db.portal.call(self._async.setup)

    def forget_user(self, user_id: str) -> int:
        """Erases all memories of a user, those in threads, too; how many they were."""
        return self.db.portal.call(self._async.forget_user, user_id)

    def sweep(
        self, policies: Sequence[ForgettingPolicy], *, dry_run: bool = False
    ) -> ForgettingResult:
        """Forgets what policies say, one after the other, of all users and threads of the tenant.

        Args:
            dry_run: only counts, for each policy as if it were alone.
        """
        return self.db.portal.call(self._async.sweep, policies, dry_run=dry_run)

    def job(
        self,
        policies: Sequence[ForgettingPolicy],
        *,
        every_seconds: float = 3600.0,
        name: str | None = None,
    ) -> Job:
        """A job for a Worker: `sweep(policies)` again and again, in one process at a time.

        Workers that have it under one name share it, whatever their policies are. How many memories
        it took stands in the log.

        Args:
            every_seconds: how long after a sweep the next one begins.
            name: in the log and in `agent_jobs`; None is "forget", with the tenant's name if there
                is one.
        """
        return self._async.job(policies, every_seconds=every_seconds, name=name)

    def consolidate(
        self,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        types: Sequence[MemoryType | str] | None = None,
        threshold: float = 0.95,
        merge: Merge | None = None,
    ) -> ConsolidationResult:
        """Makes one of live memories that say nearly the same, of one scope and type, by their
        vectors.

        By itself it leaves the most important of them (of these the most accessed, then the newest)
        as it is, with the counts and metadata of all, and has it supersede the others. `sources`
        tell where all came from. A second run changes nothing more. Each cluster is merged or
        isn't, in transactions of bounded size; those that hold at different times stay apart.

        Args:
            user_id, thread_id: of this user, thread, or user in a thread alone; without both, all
                of the tenant's.
            types: of one of these; None is any.
            threshold: the least cosine similarity to the one that stays, above 0 and up to 1.
            merge: a function, sync or async, that is given a tuple of up to 50 memories, the
                oldest first, and gives what supersedes them: NewMemory, or texts, one or a list;
                None leaves them. It is called outside of any transaction, and not for memories of
                which all were merged before.

        Raises:
            InvalidArgumentError: this memory was made without `embed`; `merge` gave something else.
            MissingVectorsError: there are no tables of vectors.
        """
        return self.db.portal.call(
            self._async.consolidate,
            user_id=user_id,
            thread_id=thread_id,
            types=types,
            threshold=threshold,
            merge=merge,
        )

    def consolidate_job(
        self,
        *,
        types: Sequence[MemoryType | str] | None = None,
        threshold: float = 0.95,
        merge: Merge | None = None,
        every_seconds: float = 86400.0,
        name: str | None = None,
    ) -> Job:
        """A job for a Worker: `consolidate` of all the tenant's, again and again, in one process at
        a time.

        Args:
            types, threshold, merge: as of `consolidate`.
            every_seconds: how long after a run the next one begins.
            name: in the log and in `agent_jobs`; None is "consolidate", with the tenant's name if
                there is one.
        """
        return self._async.consolidate_job(
            types=types, threshold=threshold, merge=merge, every_seconds=every_seconds, name=name
        )

    def export(
        self,
        file: str | os.PathLike[str] | TextIO,
        *,
        user_id: str | None = None,
        vectors: bool = False,
    ) -> int:
        """Writes memories as JSON Lines, and returns how many: with provenance and all times, also
        those that were superseded, were forgotten, or have expired; as they are in one moment.

        A path is replaced as a whole once everything is written (by a file that only its
        owner reads), or left alone where something fails. A text file object is written
        to as the pages come, and not closed.

        Args:
            user_id: this user's alone, those in threads, too; None is all of the tenant's.
            vectors: with the vectors of this memory's model; else an import makes them anew.

        Raises:
            InvalidArgumentError: `vectors` of a memory that was made without `embed`; no such file.
        """
        return self.db.portal.call(self._async.export, file, user_id=user_id, vectors=vectors)

    def import_(
        self, file: str | os.PathLike[str] | TextIO, *, user_id: str | None = None
    ) -> ImportResult:
        """Stores what `export` wrote, as it was. What is there already isn't stored again, so the
        same call continues an import that was interrupted.

        With `embed`, what has no vector in the file is embedded, a batch by one call.

        Args:
            file: a path, or a text file that is open.
            user_id: a line of anybody else is refused; None takes all users of the tenant.

        Raises:
            InvalidArgumentError: a line can't be stored, or is another tenant's or user's. The
                message has its number; what stands before it may be stored.
            DimensionsError: a vector of this memory's model has other dimensions than it.
            EmbeddingError, MissingVectorsError: as of `remember`.
        """
        return self.db.portal.call(self._async.import_, file, user_id=user_id)

    def reembed(
        self,
        *,
        embed: Embed | None = None,
        dims: int | None = None,
        model: str | None = None,
        batch: int = 100,
        on_progress: Callable[[EmbeddingProgress], object] | None = None,
    ) -> EmbeddingProgress:
        """Makes vectors by another model of all the tenant's memories, beside those that are there,
        and has this memory use it from then on. Recalls go by the old ones meanwhile.

        Each batch is stored at once: who is interrupted calls it again, and only what has no
        vector yet is embedded. Other processes use the new model once they are made with it; what
        they remember by the old one until then is embedded by another call. Without `embed` it is
        this memory's own model: of what was remembered without.

        Args:
            embed, dims: as of AgentMemory.
            model: a name for the new model, another one than this memory's.
            batch: how many texts `embed` is given at once.
            on_progress: called after each batch.

        Raises:
            InvalidArgumentError: `embed` without a `model` of another name, or the reverse.
            DimensionsError: vectors of this model are there, and have other dimensions.
            EmbeddingError, MissingVectorsError: as of `remember`; what was done before is stored.
        """
        return self.db.portal.call(
            self._async.reembed,
            embed=embed,
            dims=dims,
            model=model,
            batch=batch,
            on_progress=on_progress,
        )

    def delete_vectors(self, model: str) -> int:
        """Deletes the vectors of the tenant's memories by a model that isn't used any more, and
        returns how many they were.

        Args:
            model: its name, "" where it was given none.

        Raises:
            InvalidArgumentError: it is the model of this memory.
        """
        return self.db.portal.call(self._async.delete_vectors, model)

    def create_index(self) -> None:
        """Makes an approximate index (HNSW) of the vectors of this memory's model, unless there is
        one.

        It is for tenants of which single users or threads have many thousands of memories: recalls
        by vectors alone use it above 2,000 in their scopes, and sort what it gives exactly. Vectors
        can't be written while it is built, and are dearer to write from then on.

        Raises:
            InvalidArgumentError: this memory was made without `embed`, or with more dimensions than
                such an index takes: 4,000 as halfvec, 2,000 as vector.
            MissingVectorsError: there are no tables of vectors.
        """
        self.db.portal.call(self._async.create_index)

    def remember(
        self,
        text: str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        type: MemoryType | str = MemoryType.SEMANTIC,
        importance: float = 0.0,
        pinned: bool = False,
        ttl: timedelta | None = None,
        expires_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        context: str | None = None,
        supersedes: UUID | str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        message_no: int | None = None,
        conn: Step | None = None,
    ) -> Memory:
        """Stores a memory, and returns it as it is stored.

        What is there already, of the same type with the same text in the same scope, is reinforced:
        that is an access more, the greater importance and the later end count, metadata is added.
        In a node, it says which checkpoint it comes from.

        Args:
            user_id, thread_id: whose it is. With a thread it is of the thread, and goes with it.
            type: such as "episodic", "semantic", "procedural" or "working".
            importance: from 0 to 1, or on whatever scale all are on.
            pinned: nothing that goes by rules takes it away.
            ttl, expires_at: until when it is recalled, for so long, or to a time.
            context: what was said around it. It is searched with the text.
            supersedes: the memory of the same scope that this one takes the place of.
            valid_from, valid_to: when it holds; outside of that it isn't recalled.
            message_no: of the message that it comes from, as in `Messages`.
            conn: this_step(), in a node: it is done with the node's result.

        Raises:
            MissingMemoryError: what it supersedes isn't there, or isn't live.
            EmbeddingError, DimensionsError, MissingVectorsError: it has no vector that fits.
            InvalidArgumentError, UnstorableValueError: what can't be stored.
        """
        return self.db.portal.call(
            self._async.remember,
            text,
            user_id=user_id,
            thread_id=thread_id,
            type=type,
            importance=importance,
            pinned=pinned,
            ttl=ttl,
            expires_at=expires_at,
            metadata=metadata,
            context=context,
            supersedes=supersedes,
            valid_from=valid_from,
            valid_to=valid_to,
            message_no=message_no,
            conn=conn,
        )

    def remember_many(
        self,
        memories: Iterable[NewMemory | str],
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        conn: Step | None = None,
    ) -> tuple[Memory, ...]:
        """`remember` of several, of one user and thread, all or none, with one call of `embed`.

        Args:
            memories: NewMemory(text=..., ...), or texts. Of the same type and text it is one.
        """
        return self.db.portal.call(
            self._async.remember_many, memories, user_id=user_id, thread_id=thread_id, conn=conn
        )

    def recall(
        self,
        query: str | None,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        types: Sequence[MemoryType | str] | None = None,
        k: int = 8,
        scoring: Scoring | Scorer | None = None,
        lambda_mult: float | None = None,
        fetch_k: int | None = None,
        now: datetime | None = None,
        as_of: datetime | None = None,
        as_of_checkpoint: str | None = None,
        touch: bool = True,
    ) -> tuple[Recalled, ...]:
        """The best memories for a query, the best first: `k` of them, if there are as many.

        They are the user's own, with a thread also the thread's, and the user's in the thread. By
        default words count, and vectors half as much (HYBRID). None as the query gives the most
        important.

        Args:
            types: of one of these; None is any.
            scoring: what counts how much: HYBRID, TEXT, SEMANTIC, RANKS, GENERATIVE_AGENTS,
                IMPORTANCE, or a Scoring. Or a function, sync or async, of a Recalled with its
                parts and the time of the recall, that gives its score; it is asked of the
                `fetch_k` best by the usual scoring.
            lambda_mult: from 0 to 1: of the `fetch_k` best those that are near the query and far
                from each other, by their vectors (maximal marginal relevance); 1 has diversity
                not count, 0 nothing else. None doesn't look for it.
            fetch_k: of how many of the best are the `k` chosen, where they are chosen; None is 20,
                or four times `k`.
            now: a time in place of the server's.
            as_of: what was known at a time, whatever was superseded or forgotten since. Erased
                memories aren't there.
            as_of_checkpoint: `as_of` the time at which this checkpoint of the thread was stored.
            touch: whether this is an access. Accesses are written a little later.

        Raises:
            MissingCheckpointError: the thread has no such checkpoint.
            DimensionsError, MissingVectorsError: the vectors that are there don't fit, or aren't.
        """
        return self.db.portal.call(
            self._async.recall,
            query,
            user_id=user_id,
            thread_id=thread_id,
            types=types,
            k=k,
            scoring=scoring,
            lambda_mult=lambda_mult,
            fetch_k=fetch_k,
            now=now,
            as_of=as_of,
            as_of_checkpoint=as_of_checkpoint,
            touch=touch,
        )

    def flush(self) -> None:
        """Writes the accesses that were counted in this event loop, and aren't written yet."""
        self.db.portal.call(self._async.flush)

    def get(
        self,
        memory_id: UUID | str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
    ) -> Memory | None:
        """A memory, also one that was superseded or has expired; None where there is none."""
        return self.db.portal.call(self._async.get, memory_id, user_id=user_id, thread_id=thread_id)

    def list(
        self,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        types: Sequence[MemoryType | str] | None = None,
        order: MemoryOrder = "created",
        after: str | None = None,
        limit: int = 100,
    ) -> MemoryPage:
        """A page of the memories that a recall goes over, those first that come first in the order.

        Args:
            order: "importance", "created" (the newest first) or "accessed" (the last first).
            after: the `next_cursor` of the page before.
            limit: memories per page, at most 10,000.

        Raises:
            InvalidCursorError: `after` isn't a cursor of this order.
        """
        return self.db.portal.call(
            self._async.list,
            user_id=user_id,
            thread_id=thread_id,
            types=types,
            order=order,
            after=after,
            limit=limit,
        )

    def forget(
        self,
        memory_id: UUID | str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        erase: bool = False,
        conn: Step | None = None,
    ) -> None:
        """Has a memory not recalled any more, but `as_of` a time before; one that isn't there is
        no error.

        Args:
            erase: deletes it, with its vectors, so that nothing gives it any more.
            conn: this_step(), in a node: it is done with the node's result.
        """
        self.db.portal.call(
            self._async.forget,
            memory_id,
            user_id=user_id,
            thread_id=thread_id,
            erase=erase,
            conn=conn,
        )

    def recall_node(
        self,
        *,
        k: int = 8,
        types: Sequence[MemoryType | str] | None = None,
        into: str = "memories",
        query: Query | None = None,
        scoring: Scoring | Scorer | None = None,
    ) -> Runnable[Any, dict[str, Any]]:
        """A node that recalls for the run's user and thread, as its config names them.

        Args:
            into: the part of the state that gets them: a list of dicts with `memory_id`, `type`,
                `text`, `score`, `recorded_at` and `source_thread_id`.
            query: a function of the state that gives the query, None for the most important;
                without, it is what a person said last in the state's "messages".
        """
        return self._async.recall_node(k=k, types=types, into=into, query=query, scoring=scoring)

    def remember_node(
        self, extract: Callable[[Any], Any], *, in_thread: bool = False
    ) -> Runnable[Any, dict[str, Any]]:
        """A node that remembers what `extract(state)` gives, and changes nothing of the state.

        It is stored with the node's result, by `this_step()`, where the graph's saver is a
        PostgresSaver of this database: once, however often the node is executed. Else it is stored
        by itself, and an execution more is an access more.

        Args:
            extract: a function, sync or async, that gives NewMemory, or texts; None is nothing.
            in_thread: it is of the thread, too, and goes with it; else of the run's user alone,
                or, where the config names none, of the thread.
        """
        return self._async.remember_node(extract, in_thread=in_thread)

    def tools(self, *, k: int = 8, in_thread: bool = False) -> Sequence[BaseTool]:
        """Tools by which an agent looks after its own memory: `save_memory`, `search_memories` and
        `forget_memory`.

        They are for the user and the thread that the run's config names, whatever a model says.
        What they change is stored at once, so that the model's next call finds it; a call that is
        executed again is an access more.

        Args:
            k: how many memories a search gives.
            in_thread: what is saved is of the thread, too, as of `remember_node`.
        """
        return self._async.tools(k=k, in_thread=in_thread)

    @property
    def store(self) -> MemoryStore:
        """A store of items on the same database, with the same embedding, for
        `compile(store=memory.store)`; always the same one.

        Its tables of vectors are made by its own `setup()`. Its tenant is this memory's, or the
        Database's.
        """
        return self._async.store
