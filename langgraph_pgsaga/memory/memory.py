"""AgentMemory: what agents remember of a user, of a thread, or of a user in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from langgraph_pgsaga._arguments import (
    checked_choice,
    checked_flag,
    checked_integer,
    checked_items,
    checked_time,
    required_text,
)
from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError
from langgraph_pgsaga.memory.choosing import Choice
from langgraph_pgsaga.memory.index import StoreIndex
from langgraph_pgsaga.memory.listing import STATEMENTS, MemoryOrder, Place, cursor_behind
from langgraph_pgsaga.memory.nodes import Query, recall_node, remember_node
from langgraph_pgsaga.memory.recalling import Recall, scoring_of
from langgraph_pgsaga.memory.remembering import (
    Batch,
    NewMemory,
    Vectors,
    checked_id,
    type_names,
)
from langgraph_pgsaga.memory.row import Memory, MemoryPage, MemoryType, Recalled
from langgraph_pgsaga.memory.scope import Scope
from langgraph_pgsaga.memory.scoring import Scorer, Scoring
from langgraph_pgsaga.memory.store import MemoryStore
from langgraph_pgsaga.memory.tools import memory_tools
from langgraph_pgsaga.memory.upkeep import Upkeep
from langgraph_pgsaga.threads import ThreadId
from langgraph_pgsaga.work import Step, written

_STATEMENTS = load_statements("memory")
_MOST_PER_PAGE = 10_000


class AgentMemory(Upkeep):
    """A tenant's memories in a database.

    A memory is its user's, its thread's, or a user's in a thread. It is given only to who names
    all of that, so nobody is given another user's; a call that names neither is refused. Methods
    with `conn` join that connection's transaction; without, they commit on their own, and are
    repeated when the connection is lost.

    Args:
        db: the database.
        embed: makes vectors of texts: LangChain's Embeddings, or a function of a list of texts,
            sync or async. Without it memories are recalled by their words.
        dims: how many dimensions the vectors have, to 16,000.
        tenant: whose memories they are. None is the tenant of the run that a call is part of, else
            the Database's.
        language: the configuration of text search, such as "english", "german" or "simple";
            one of your own with its schema.
        vector_type: "halfvec" takes two bytes for a dimension, "vector" four.
        model: a name for the model of `embed`, if memories have vectors of several.

    Raises:
        MissingTenantError: from calls, where the Database requires a tenant and there is none.
    """

    # Remembering

    async def remember(
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
        conn: Connection | Step | None = None,
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
            conn: of a transaction that it joins. With this_step() it is done with the node's
                result; the memory is returned at once, as it is if it is new.

        Raises:
            MissingMemoryError: what it supersedes isn't there, or isn't live.
            EmbeddingError, DimensionsError, MissingVectorsError: it has no vector that fits.
            InvalidArgumentError, UnstorableValueError: what can't be stored.
        """
        new = NewMemory(
            text=text,
            type=type,
            importance=importance,
            pinned=pinned,
            ttl=ttl,
            expires_at=expires_at,
            metadata={} if metadata is None else metadata,
            context=context,
            supersedes=supersedes,
            valid_from=valid_from,
            valid_to=valid_to,
            message_no=message_no,
        )
        [memory] = await self.remember_many([new], user_id=user_id, thread_id=thread_id, conn=conn)
        return memory

    async def remember_many(
        self,
        memories: Iterable[NewMemory | str],
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        conn: Connection | Step | None = None,
    ) -> tuple[Memory, ...]:
        """`remember` of several, of one user and thread, all or none, with one call of `embed`.

        Args:
            memories: NewMemory(text=..., ...), or texts. Of the same type and text it is one.
        """
        scope = self._scope(user_id, thread_id)
        given = [
            one if isinstance(one, NewMemory) else NewMemory(text=one)
            for one in checked_items("memories", memories)
        ]
        if not given:
            return ()
        batch = Batch(given, scope, self._language)
        vectors = await self._vectors_of([one.text for one in batch.memories])

        async def store(conn: Connection | None) -> tuple[Memory, ...]:
            return await batch.store(self.db, vectors, conn)

        return await written(conn, self.db, store, known=batch.as_new())

    # Recalling

    async def recall(
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
        conn: Connection | None = None,
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
        scope = self._scope(user_id, thread_id)
        checked_flag("touch", touch)
        has_vectors = self._embedder is not None
        rule = scoring_of(scoring, query, has_vectors=has_vectors)
        choice = Choice.of(
            k=checked_integer("k", k, least=1, most=_MOST_PER_PAGE),
            scorer=None if scoring is rule or scoring is None else scoring,
            lambda_mult=lambda_mult,
            fetch_k=fetch_k,
            has_vectors=has_vectors,
        )
        asked = Recall(
            scopes=scope.visible,
            types=type_names(types),
            language=self._language,
            query="" if query is None else required_text("query", query),
            scoring=rule,
            k=choice.fetched,
            now=checked_time("now", now),
            as_of=await self._moment(scope, as_of, as_of_checkpoint, conn),
        )
        vectors = None
        if self._embedder is not None and asked.query and rule.semantic:
            await self._tables.check()
            values = await self._embedder.of_query(asked.query)
            vectors = Vectors(
                values=values, dims=len(values), model=self._model, is_half=self._is_half
            )
        candidates = await asked.run(self.db, vectors, conn, self._tables)
        found = await choice.made(self.db, candidates, self._model, rule, conn)
        if touch and asked.as_of is None:
            self._touches.add((one.memory.scope_id, one.memory.memory_id) for one in found)
        return found

    async def flush(self) -> None:
        """Writes the accesses that were counted in this event loop, and aren't written yet."""
        await self._touches.flush()

    async def get(
        self,
        memory_id: UUID | str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
    ) -> Memory | None:
        """A memory, also one that was superseded or has expired; None where there is none."""
        statement = _STATEMENTS["get_memory"].bind(
            scope_ids=self._scope(user_id, thread_id).visible,
            memory_id=checked_id("memory_id", memory_id),
        )
        row = await self.db.fetch_one(statement)
        return None if row is None else Memory.from_row(row)

    async def list(
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
        checked_choice("order", order, STATEMENTS)
        place = Place.of_cursor(after, order)
        statement = _STATEMENTS[STATEMENTS[order]].bind(
            scope_ids=self._scope(user_id, thread_id).visible,
            types=type_names(types),
            after_place=place.value,
            after_id=place.memory_id,
            page=checked_integer("limit", limit, least=1, most=_MOST_PER_PAGE),
        )
        memories = tuple(Memory.from_row(row) for row in await self.db.fetch(statement))
        cursor = cursor_behind(memories[-1], order) if len(memories) == limit else None
        return MemoryPage(memories=memories, next_cursor=cursor)

    # Forgetting

    async def forget(
        self,
        memory_id: UUID | str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        erase: bool = False,
        conn: Connection | Step | None = None,
    ) -> None:
        """Has a memory not recalled any more, but `as_of` a time before; one that isn't there is
        no error.

        Args:
            erase: deletes it, with its vectors, so that nothing gives it any more.
            conn: of a transaction that it joins, or this_step().
        """
        name = "erase_memory" if checked_flag("erase", erase) else "forget_memory"
        statement = _STATEMENTS[name].bind(
            scope_ids=self._scope(user_id, thread_id).visible,
            memory_id=checked_id("memory_id", memory_id),
        )

        async def work(conn: Connection | None) -> None:
            await self.db.fetch(statement, conn=conn)

        await written(conn, self.db, work, known=None)

    # In graphs

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
        return recall_node(self, k=k, types=types, into=into, query=query, scoring=scoring)

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
        return remember_node(self, extract, in_thread=in_thread)

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
        return memory_tools(self, k=k, in_thread=in_thread)

    @property
    def store(self) -> MemoryStore:
        """A store of items on the same database, with the same embedding, for
        `compile(store=memory.store)`; always the same one.

        Its tables of vectors are made by its own `setup()`. Its tenant is this memory's, or the
        Database's.
        """
        if self._store is None:
            self._store = MemoryStore(self.db, index=self._store_index(), tenant=self._tenant)
        return self._store

    # Inside

    def _store_index(self) -> StoreIndex | None:
        if self._embedder is None:
            return None
        kind: Literal["halfvec", "vector"] = "halfvec" if self._is_half else "vector"
        return {
            "embed": self._embedder.embed,
            "dims": self._embedder.dims,
            "ann_index_config": {"kind": "flat", "vector_type": kind},
        }

    async def _moment(
        self,
        scope: Scope,
        as_of: datetime | None,
        checkpoint_id: str | None,
        conn: Connection | None,
    ) -> datetime | None:
        """The time that a recall is as of."""
        if checkpoint_id is None:
            return checked_time("as_of", as_of)
        if as_of is not None or scope.thread_id is None:
            problem = "goes with thread_id=, and without as_of="
            raise InvalidArgumentError(argument="as_of_checkpoint", problem=problem)
        statement = _STATEMENTS["get_checkpoint_time"].bind(
            session_id=scope.session_id,
            checkpoint_id=required_text("as_of_checkpoint", checkpoint_id),
        )
        row = await self.db.fetch_one(statement, conn=conn)
        if row is None:
            raise MissingCheckpointError(thread_id=scope.thread_id)
        moment: datetime = row["created_at"]
        return moment
