from shared.hub.documents import merge


def test_a_patch_deletes_merges_and_leaves_its_arguments_alone() -> None:
    document = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(document, {"a": {"b": None, "e": 4}, "d": None, "f": {"g": None}}) == {
        "a": {"c": 2, "e": 4},
        "f": {},
    }
    assert document == {"a": {"b": 1, "c": 2}, "d": 3}
