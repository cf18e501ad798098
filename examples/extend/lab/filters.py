"""A filter: a function of a record's columns that returns why the record is rejected, or None to keep it."""

from gristmill.actors.records import filter_records, map_records


@filter_records
def too_short(text: str, *, least: int = 3) -> str | None:
    """Reject texts of fewer than ``least`` words."""
    return f"fewer than {least} words" if len(text.split()) < least else None


@map_records
def words(text: str) -> int:
    """Add a column with the function's name and the type of its results: the number of words."""
    return len(text.split())
