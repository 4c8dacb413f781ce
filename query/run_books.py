"""The open books of a run, as a program and a notebook see them."""

from __future__ import annotations

from dataclasses import fields

from provd.common.record import Record
from provd.query import notebook
from provd.query.verify import BUCKETS, GAPS, verdict
from provd.store.books import ProducerBooks, WorkflowBooks

_COLUMNS = ("producer_id", "hostname", "rank", "closed", "complete", "produced", *BUCKETS, "tasks_stored")


class RunBooks(WorkflowBooks):
    """The books of one run, which show themselves."""

    __slots__ = ()

    @classmethod
    def of(cls, books: WorkflowBooks) -> RunBooks:
        """The same books."""
        return cls(**{field.name: getattr(books, field.name) for field in fields(books)})

    def __repr__(self) -> str:
        return f"<Books of {notebook.short(self.workflow_id)}: {notebook.short(verdict(self))}>"

    def _repr_html_(self) -> str:
        # Those with something to tell come first.
        told = sorted(self.producers, key=lambda producer: producer.complete)
        caption = f"Books of {self.workflow_id}: {verdict(self)}"
        return notebook.first_rows(_COLUMNS, [_row(producer) for producer in told], caption)


def _row(producer: ProducerBooks) -> Record:
    row = {name: getattr(producer, name) for name in _COLUMNS}
    # Where all is well a number says it; of a gap it is asked which ones.
    return {**row, "stored": len(producer.stored), **{gap: str(row[gap]) for gap in GAPS}}
