"""FileBackend: deepagents' files in the store, found by the server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from deepagents.backends.protocol import (
    DeleteResult,
    EditResult,
    FileInfo,
    GlobResult,
    GrepMatch,
    GrepResult,
    LsResult,
)
from deepagents.backends.store import NamespaceFactory, StoreBackend
from deepagents.backends.utils import (
    InvalidGlobPatternError,
    compile_grep_include_glob,
    file_data_to_string,
    perform_string_replacement,
    update_file_data,
)

from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga.errors import ItemConflictError
from langgraph_pgsaga.memory.paths import Files, Root
from langgraph_pgsaga.memory.store import MemoryStore

P = ParamSpec("P")
T = TypeVar("T")
# Each failure is another's success, so that these are many who edit one file at once.
_ATTEMPTS = 200


class FileBackend(StoreBackend):
    """deepagents' StoreBackend for a MemoryStore, whose files it reads and writes as they are.

    Listing, grep, glob and a deletion are one statement each, over the keys below a path, where
    StoreBackend reads all files page by page. An edit is done to the version that it has read, else
    again: of edits of one file at once none is lost. All methods have both forms, `x` and `ax`.

    Args:
        namespace: where the files are: labels, or a function of LangGraph's Runtime that gives
            them, as StoreBackend takes it. Files of namespaces below it aren't among them.
        store: the store; None takes that of the running graph.

    Raises:
        InvalidArgumentError: the store is no MemoryStore.
    """

    def __init__(
        self,
        *,
        namespace: NamespaceFactory | tuple[str, ...],
        store: MemoryStore | None = None,
    ) -> None:
        if store is not None:
            _checked(store)
        factory = namespace if callable(namespace) else _constant(namespace)
        super().__init__(namespace=factory, store=store)

    def ls(self, path: str) -> LsResult:
        """The files and directories in a directory, by their paths."""
        return self._called(self._ls, path)

    async def als(self, path: str) -> LsResult:
        """`ls` for async callers."""
        return await self._ls(self._files(), path)

    def glob(self, pattern: str, path: str | None = None) -> GlobResult:
        """The files that fit a pattern, below a path; the last changed first."""
        return self._called(self._glob, pattern, path)

    async def aglob(self, pattern: str, path: str | None = None) -> GlobResult:
        """`glob` for async callers."""
        return await self._glob(self._files(), pattern, path)

    def grep(
        self,
        pattern: str,
        path: str | None = None,
        glob: str | None = None,
        *,
        max_count: int | None = None,
    ) -> GrepResult:
        """The lines that a text is in, as it stands, of files below a path that fit `glob`."""
        return self._called(self._grep, pattern, path, glob, max_count)

    async def agrep(
        self,
        pattern: str,
        path: str | None = None,
        glob: str | None = None,
        *,
        max_count: int | None = None,
    ) -> GrepResult:
        """`grep` for async callers."""
        return await self._grep(self._files(), pattern, path, glob, max_count)

    def edit(
        self, file_path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> EditResult:
        """Puts a text in place of another that is there once, or with `replace_all` everywhere."""
        return self._called(self._edit, file_path, old_string, new_string, replace_all)

    async def aedit(
        self, file_path: str, old_string: str, new_string: str, replace_all: bool = False
    ) -> EditResult:
        """`edit` for async callers."""
        return await self._edit(self._files(), file_path, old_string, new_string, replace_all)

    def delete(self, file_path: str) -> DeleteResult:
        """Deletes a file, or a directory with all that is in it."""
        return self._called(self._delete, file_path)

    async def adelete(self, file_path: str) -> DeleteResult:
        """`delete` for async callers."""
        return await self._delete(self._files(), file_path)

    # Inside

    def _files(self) -> Files:
        store = _checked(self._get_store())
        return Files(store, self._get_namespace())

    def _called(
        self,
        method: Callable[Concatenate[Files, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The result of a method in the store's own loop, on the files of the caller's run."""
        files = self._files()
        return files.store.db.portal.call(method, files, *args, **kwargs)

    async def _ls(self, files: Files, path: str) -> LsResult:
        rows = await files.entries(path if path.endswith("/") else f"{path}/")
        return LsResult(entries=[_info(row, is_dir=row["is_dir"]) for row in rows])

    async def _glob(self, files: Files, pattern: str, path: str | None) -> GlobResult:
        if (root := Root.of(path)) is None:
            return GlobResult(matches=[])
        try:
            fits = compile_grep_include_glob(pattern)
        except InvalidGlobPatternError as error:
            return GlobResult(error=str(error))
        rows = await files.found(root, pattern)
        found = [_info(row) for row in rows if fits(root.relative(row["path"]))]
        found.sort(key=lambda info: info["modified_at"], reverse=True)
        return GlobResult(matches=found)

    async def _grep(
        self,
        files: Files,
        pattern: str,
        path: str | None,
        glob: str | None,
        max_count: int | None,
    ) -> GrepResult:
        if (root := Root.of(path)) is None:
            return GrepResult(matches=[])
        # One more tells whether there are more.
        most = None if max_count is None or glob else max_count + 1
        try:
            fits = compile_grep_include_glob(glob) if glob else None
        except InvalidGlobPatternError as error:
            return GrepResult(error=str(error))
        matches = [
            GrepMatch(path=row["path"], line=row["line"], text=row["text"])
            for row in await files.lines(root, pattern, glob or None, most)
            if fits is None or fits(root.relative(row["path"]))
        ]
        if max_count is not None and len(matches) > max_count:
            return GrepResult(matches=matches[:max_count], truncated=True)
        return GrepResult(matches=matches)

    async def _edit(
        self, files: Files, path: str, old: str, new: str, replace_all: bool
    ) -> EditResult:
        for _ in range(_ATTEMPTS):
            item = await files.store.aget(files.namespace, path)
            if item is None:
                return EditResult(error=f"Error: File '{path}' not found")
            try:
                data = self._convert_store_item_to_file_data(item)
            except ValueError as error:
                return EditResult(error=f"Error: {error}")
            if data.get("encoding") == "base64":
                return EditResult(error="Error: Cannot edit binary files with text replacements.")
            edited = perform_string_replacement(file_data_to_string(data), old, new, replace_all)
            if isinstance(edited, str):
                return EditResult(error=edited)
            text, occurrences = edited
            value = dict(update_file_data(data, text))
            try:
                await files.store.aput(
                    files.namespace, path, value, expected_version=getattr(item, "version", None)
                )
            except ItemConflictError:
                continue
            return EditResult(path=path, occurrences=occurrences)
        return EditResult(error=f"Error: File '{path}' is changed by others all the time")

    async def _delete(self, files: Files, path: str) -> DeleteResult:
        if await files.delete(path):
            return DeleteResult(path=path)
        return DeleteResult(error=f"Error: File '{path}' not found")


def _checked(store: Any) -> MemoryStore:
    hint = "FileBackend is for a MemoryStore; StoreBackend is for any store"
    return checked_instance("store", store, MemoryStore, hint)


def _constant(namespace: tuple[str, ...]) -> NamespaceFactory:
    return lambda _: namespace


def _info(row: Any, *, is_dir: bool = False) -> FileInfo:
    return FileInfo(
        path=row["path"], is_dir=is_dir, size=row["size"], modified_at=row["modified_at"] or ""
    )
