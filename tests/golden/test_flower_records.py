"""A Flower app's records on the wire: what was written once is read for ever, and written the same."""

from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shared.flower_records import decode_records, encode_records

FILE = Path(__file__).parent / "flower_records" / "v1" / "records.safetensors"


def records() -> RecordDict:
    """One of everything."""
    array = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"\x93NUMPY, and so on")
    return RecordDict(
        {
            "arrays": ArrayRecord({"w": array, "raw": Array("", (), "xgboost.json", b"{}")}),
            "config": ConfigRecord({"b": b"\x00\xff", "t": True, "i": 1, "f": 1.0, "s": "ü", "l": [b"x"], "e": []}),
            "metrics": MetricRecord({"num-examples": 7, "losses": [0.5, 0.25]}),
            "empty": ArrayRecord(),
        }
    )


def test_the_golden_file_is_read_and_written_to_the_byte() -> None:
    golden = FILE.read_bytes()
    assert decode_records(golden) == records()
    assert encode_records(records()) == golden
