"""The test cases of the `eventsourcing` library for recorders hold for this store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import TestCase

import pytest
from eventsourcing.tests import persistence as cases

from langgraph_pgsaga import Database
from tests.db import _recorders as recorders

# Some of them write ten thousand events.
pytestmark = pytest.mark.slow


class OnDatabase(TestCase):
    """A case that is given a database."""

    kind: Callable[[Database], Any]
    db: Database

    @pytest.fixture(autouse=True)
    def _database(self, dsn: str) -> Iterator[None]:
        with Database(dsn, max_size=20) as db:
            self.db = db
            yield

    def create_recorder(self) -> Any:
        return type(self).kind(self.db)


class TestAggregateRecorder(OnDatabase, cases.AggregateRecorderTestCase):
    kind = recorders.AggregateRecorder


class TestApplicationRecorder(
    OnDatabase, cases.ApplicationRecorderTestCase[recorders.ApplicationRecorder]
):
    kind = recorders.ApplicationRecorder

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(OnDatabase, cases.TrackingRecorderTestCase):
    kind = recorders.ProcessRecorder


class TestProcessRecorder(OnDatabase, cases.ProcessRecorderTestCase):
    kind = recorders.ProcessRecorder


class TestNonInterleavingIds(OnDatabase, cases.NonInterleavingNotificationIDsBaseCase):
    kind = recorders.ApplicationRecorder
