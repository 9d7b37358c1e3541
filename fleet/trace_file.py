"""A trace as a CSV file: a header, then a row for each observation; an empty cell where nothing was observed."""

import csv
import io

from shared.api.traces import Trace, TraceRow

COLUMNS = tuple(TraceRow.model_fields)


def trace_csv(trace: Trace) -> bytes:
    """The file's bytes, UTF-8; times to the millisecond."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in trace.rows:
        values = row.model_dump(mode="json")
        writer.writerow(
            {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
        )
    return text.getvalue().encode()
