from __future__ import annotations
from langchain_core.messages import BaseMessage


class Snapshot:
    @classmethod
    def of(cls, message: BaseMessage) -> Snapshot | None:
        return None

    @classmethod
    def of_decoded(cls, message: BaseMessage) -> Snapshot | None:
        return None

    def matches(self, message: BaseMessage) -> bool:
        return False

    def copy(self) -> BaseMessage:
        raise NotImplementedError
