"""What can be had as a table in every form that people use; columns as in `provd.query.columns`, types as in
`provd.query.arrow`, whatever the form.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from provd.common.errors import MissingExtra
from provd.common.record import Record
from provd.query.tabular import TableWritten, write_csv, write_parquet

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class Frames(ABC):
    """Records that become a table."""

    @abstractmethod
    def _records(self) -> Iterator[Record]:
        """The records, asked for anew."""

    @abstractmethod
    def _first_columns(self) -> Sequence[str]:
        """The columns that stand first, and are there in any case."""

    def to_arrow(self) -> pa.Table:
        """All of it as an Arrow table. Needs the extra `parquet`."""
        try:
            from provd.query.arrow import to_table
        except ModuleNotFoundError as error:
            raise MissingExtra("to_arrow()", "parquet") from error
        return to_table(self._records(), self._first_columns())

    def to_pandas(self) -> pd.DataFrame:
        """All of it as a pandas data frame; whole numbers and booleans are of pandas' types that know missing values.

        Needs the extra `dataframe`.
        """
        try:
            import pandas as pd
            import pyarrow as pa
        except ModuleNotFoundError as error:
            raise MissingExtra("to_pandas()", "dataframe") from error
        types: dict[Any, Any] = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        frame: pd.DataFrame = self.to_arrow().to_pandas(types_mapper=types.get)
        return frame

    def to_polars(self) -> pl.DataFrame:
        """All of it as a polars data frame. Needs the extra `polars`."""
        try:
            import polars as pl
            import pyarrow as pa  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtra("to_polars()", "polars") from error
        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_parquet(self, path: str | os.PathLike[str]) -> TableWritten:
        """Write it to a Parquet file, whole or not at all, in bounded memory. Needs the extra `parquet`."""
        return write_parquet(self._records(), path, columns=self._first_columns())

    def to_csv(self, path: str | os.PathLike[str]) -> TableWritten:
        """Write it to a CSV file, whole or not at all, in bounded memory."""
        from provd.query.output_file import replaced

        with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            return write_csv(self._records(), stream, columns=self._first_columns(), scratch=temporary.parent)
