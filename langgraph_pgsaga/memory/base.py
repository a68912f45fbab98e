"""What every part of AgentMemory needs: its settings, its tables, and whose a call is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from langgraph_pgsaga._arguments import checked_choice, checked_instance, required_text
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.embedding import Embed, Embedder
from langgraph_pgsaga.memory.remembering import Vectors
from langgraph_pgsaga.memory.scope import Scope, checked_name
from langgraph_pgsaga.memory.store import MemoryStore
from langgraph_pgsaga.memory.touching import Touches
from langgraph_pgsaga.memory.vector_tables import VectorTables
from langgraph_pgsaga.tenants import Tenants, checked_tenant
from langgraph_pgsaga.threads import ThreadId
from langgraph_pgsaga.work import RunContext

_STATEMENTS = load_statements("memory")


class MemoryBase:
    """A tenant's memories in a database, and the model that embeds them."""

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
        self.db = checked_instance("db", db, Database, "Pass a Database, such as saver.db")
        if embed is None and dims is not None:
            raise InvalidArgumentError(argument="dims", problem="goes with embed=")
        checked_choice("vector_type", vector_type, ("halfvec", "vector"))
        self._embedder = (
            None if embed is None else Embedder(embed, dims=dims, vector_type=vector_type)
        )
        self._tenant = None if tenant is None else checked_tenant("tenant", tenant)
        self._tenants = Tenants(db.tenant, is_required=db.require_tenant)
        name = checked_name("language", language)
        self._language = name if "." in name else f"pg_catalog.{name}"
        self._is_half = vector_type == "halfvec"
        self._model = checked_name("model", model) if required_text("model", model) else ""
        self._tables = VectorTables(db)
        self._touches = Touches(db)
        self._store: MemoryStore | None = None
        self._tenant_id()  # a memory of no tenant is refused at once, where one is required

    async def setup(self) -> None:
        """Makes or updates the tables, as `Database.setup` does, and those of vectors where there
        is `embed`.

        Raises:
            MissingVectorsError: the server has no pgvector.
            InvalidArgumentError: it has no configuration of text search of this name.
        """
        await self.db.asetup()
        found = await self.db.fetch(_STATEMENTS["get_language"].bind(language=self._language))
        if not found:
            problem = f"the server has no configuration of text search {self._language!r}"
            raise InvalidArgumentError(argument="language", problem=problem)
        if self._embedder is not None:
            await self._tables.make()

    def _scope(self, user_id: str | None, thread_id: ThreadId | None) -> Scope:
        return Scope.of(self._tenant_id(), user_id, thread_id)

    def _tenant_id(self) -> str:
        """The tenant of a call."""
        if self._tenant is not None:
            return self._tenants.of_call(self._tenant)
        run = RunContext.current()
        if run is not None and run.tenant_id:
            return checked_tenant("tenant_id", run.tenant_id)
        return self._tenants.of_call(None)

    async def _vectors_of(self, texts: Sequence[str]) -> Vectors | None:
        if self._embedder is None:
            return None
        await self._tables.check()
        found = await self._embedder.of_texts(texts)
        values = [float(value) for vector in found for value in vector]
        return Vectors(
            values=values, dims=self._embedder.dims, model=self._model, is_half=self._is_half
        )

    def _require_embedder(self, method: str) -> None:
        if self._embedder is None:
            problem = f"{method} goes by vectors, and this memory was made without it"
            raise InvalidArgumentError(argument="embed", problem=problem)
