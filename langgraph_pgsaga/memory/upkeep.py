"""What memories need from time to time: to be forgotten by rules, merged, and moved."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TextIO
from uuid import UUID

from langgraph_pgsaga._arguments import checked_flag, checked_integer, required_text, shown
from langgraph_pgsaga._files import read_file, written_file
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.base import MemoryBase
from langgraph_pgsaga.memory.consolidating import (
    Consolidation,
    ConsolidationResult,
    Merge,
    checked_threshold,
)
from langgraph_pgsaga.memory.embedding import Embed, Embedder
from langgraph_pgsaga.memory.forgetting import (
    ForgettingPolicy,
    ForgettingResult,
    checked_policies,
    erase_memories,
    forget_by,
)
from langgraph_pgsaga.memory.portability import Export, Import, ImportResult
from langgraph_pgsaga.memory.reembedding import Embedding, EmbeddingProgress, delete_vectors
from langgraph_pgsaga.memory.remembering import type_names
from langgraph_pgsaga.memory.row import MemoryType
from langgraph_pgsaga.memory.scope import checked_name
from langgraph_pgsaga.memory.vector_tables import VectorKind
from langgraph_pgsaga.threads import ThreadId
from langgraph_pgsaga.work import Job, Periodic

_log = logging.getLogger("langgraph_pgsaga.memory")


class Upkeep(MemoryBase):
    """What is done to all memories of a tenant, or of a user."""

    async def forget_user(self, user_id: str, *, conn: Connection | None = None) -> int:
        """Erases all memories of a user, those in threads, too; how many they were."""
        name = checked_name("user_id", user_id)
        return await erase_memories(self.db, self._tenant_id(), name, conn)

    async def sweep(
        self, policies: Sequence[ForgettingPolicy], *, dry_run: bool = False
    ) -> ForgettingResult:
        """Forgets what policies say, one after the other, of all users and threads of the tenant.

        Args:
            dry_run: only counts, for each policy as if it were alone.
        """
        rules = checked_policies(policies)
        checked_flag("dry_run", dry_run)
        return await forget_by(self.db, self._tenant_id(), rules, dry_run=dry_run)

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
        rules, tenant_id = checked_policies(policies), self._tenant_id()

        async def work() -> ForgettingResult:
            done = await forget_by(self.db, tenant_id, rules, dry_run=False)
            _log.info("swept: %s", done)
            return done

        return Periodic(
            name=(f"forget {tenant_id}" if tenant_id else "forget") if name is None else name,
            every_seconds=every_seconds,
            work=work,
            tenant_id=tenant_id,
        )

    async def consolidate(
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
        scope_ids = None
        if user_id is not None or thread_id is not None:
            scope_ids = [self._scope(user_id, thread_id).scope_id]
        return await (await self._consolidation(scope_ids, types, threshold, merge)).run()

    def consolidate_job(
        self,
        *,
        types: Sequence[MemoryType | str] | None = None,
        threshold: float = 0.95,
        merge: Merge | None = None,
        every_seconds: float = 86_400.0,
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
        tenant_id = self._tenant_id()
        checked_threshold(threshold)

        async def work() -> ConsolidationResult:
            done = await (await self._consolidation(None, types, threshold, merge, tenant_id)).run()
            _log.info("consolidated: %s", done)
            return done

        usual = f"consolidate {tenant_id}" if tenant_id else "consolidate"
        return Periodic(
            name=usual if name is None else name,
            every_seconds=every_seconds,
            work=work,
            tenant_id=tenant_id,
        )

    # As a file

    async def export(
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
        if checked_flag("vectors", vectors):
            self._require_embedder("vectors=True")
            await self._tables.check()
        name = None if user_id is None else checked_name("user_id", user_id)
        export = Export(self.db, self._tenant_id(), name, self._model if vectors else None)
        with written_file(file) as opened:
            return await export.write(opened)

    async def import_(
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
        embedding = None
        tenant_id = self._tenant_id()
        if self._embedder is not None:
            await self._tables.check()
            embedding = self._embedding(self._embedder, self._model, tenant_id)
        name = None if user_id is None else checked_name("user_id", user_id)
        reader = Import(self.db, tenant_id, name, self._language, embedding)
        with read_file(file) as opened:
            return await reader.read(opened)

    # Other models

    async def reembed(
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
        checked_integer("batch", batch, least=1, most=10_000)
        if on_progress is not None and not callable(on_progress):
            problem = f"must be a function of an EmbeddingProgress, not {shown(on_progress)}"
            raise InvalidArgumentError(argument="on_progress", problem=problem)
        embedder, name = self._other_model(embed, dims, model)
        await self._tables.check()
        tenant_id = self._tenant_id()
        work = self._embedding(embedder, name, tenant_id)
        done = await work.fill(batch, on_progress)
        self._embedder, self._model = embedder, name
        # What was remembered between the last look and now.
        last = await work.fill(batch)
        return EmbeddingProgress(done=done.done + last.done, total=done.total)

    async def delete_vectors(self, model: str) -> int:
        """Deletes the vectors of the tenant's memories by a model that isn't used any more, and
        returns how many they were.

        Args:
            model: its name, "" where it was given none.

        Raises:
            InvalidArgumentError: it is the model of this memory.
        """
        name = required_text("model", model)
        if self._embedder is not None and name == self._model:
            problem = f"{name!r} is the model that this memory goes by"
            raise InvalidArgumentError(argument="model", problem=problem)
        await self._tables.check()
        return await delete_vectors(self.db, self._tenant_id(), name)

    async def create_index(self) -> None:
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
        self._require_embedder("create_index")
        assert self._embedder is not None
        most = 4_000 if self._is_half else 2_000
        if self._embedder.dims > most:
            problem = f"{self._embedder.dims} are more than an index takes, which is {most}"
            raise InvalidArgumentError(argument="dims", problem=problem)
        await self._tables.check()
        kind = VectorKind(self._model, self._embedder.dims, self._is_half)
        await self._tables.make_index(kind)

    def _other_model(
        self, embed: Embed | None, dims: int | None, model: str | None
    ) -> tuple[Embedder, str]:
        if embed is None:
            for argument, given in (("dims", dims), ("model", model)):
                if given is not None:
                    raise InvalidArgumentError(argument=argument, problem="goes with embed=")
            self._require_embedder("reembed")
            assert self._embedder is not None
            return self._embedder, self._model
        vector_type = "halfvec" if self._is_half else "vector"
        embedder = Embedder(embed, dims=dims, vector_type=vector_type)
        if model is None:
            problem = "has to be given with embed=: a name for the new model"
            raise InvalidArgumentError(argument="model", problem=problem)
        name = checked_name("model", model)
        if self._embedder is not None and name == self._model:
            problem = (
                f"{name!r} is this memory's own; its vectors stay until the new ones are there"
            )
            raise InvalidArgumentError(argument="model", problem=problem)
        return embedder, name

    def _embedding(self, embedder: Embedder, model: str, tenant_id: str) -> Embedding:
        return Embedding(
            db=self.db,
            tenant_id=tenant_id,
            embedder=embedder,
            model=model,
            is_half=self._is_half,
        )

    async def _consolidation(
        self,
        scope_ids: Sequence[UUID] | None,
        types: Sequence[MemoryType | str] | None,
        threshold: float,
        merge: Merge | None,
        tenant_id: str | None = None,
    ) -> Consolidation:
        if merge is not None and not callable(merge):
            problem = f"must be a function of a tuple of memories, not {shown(merge)}"
            raise InvalidArgumentError(argument="merge", problem=problem)
        made = Consolidation(
            db=self.db,
            tenant_id=self._tenant_id() if tenant_id is None else tenant_id,
            scope_ids=scope_ids,
            types=type_names(types),
            model=self._model,
            language=self._language,
            threshold=checked_threshold(threshold),
            merge=merge,
            embed=self._vectors_of,
        )
        self._require_embedder("consolidate")
        await self._tables.check()
        return made
