from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage


def chunks(value: Any, data: bytes) -> list[bytes]:
    return [data]


def messages_in(value: Any) -> list[BaseMessage]:
    return []


def cut_out(data: bytes, parts: Sequence[bytes]) -> tuple[bytes, list[int]] | None:
    return None


def fill(skeleton: bytes, parts: Sequence[bytes]) -> bytes:
    raise NotImplementedError
