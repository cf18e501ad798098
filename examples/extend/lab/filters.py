"""A filter: a function of a record's columns that returns why the record is rejected, or None to keep it."""

from gristmill.actors.records import filter_records


@filter_records
def too_short(text: str, *, least: int = 3) -> str | None:
    """Reject texts of fewer than ``least`` words."""
    return f"fewer than {least} words" if len(text.split()) < least else None
