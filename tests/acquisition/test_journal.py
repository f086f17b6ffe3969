"""The journal of an acquisition: whole lines or nothing, and only what was written."""

import json

import pytest

from jaxptycho.acquisition.journal import Journal, read_journal


def test_a_journal_is_continued_after_a_line_that_was_cut(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    with Journal(path) as journal:
        journal.write("tilt", tilt=0)
        journal.write("expose", name="größe")
    text = path.read_bytes()
    for cut in range(len(text) + 1):
        path.write_bytes(text[:cut])
        whole = [json.loads(line) for line in text[:cut].splitlines(True) if line.endswith(b"\n")]
        assert read_journal(path) == whole
        with Journal(path) as journal:
            assert journal.events == whole
            journal.write("finish")
        assert read_journal(path) == [*whole, {"event": "finish"}]


def test_another_text_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "tilt"}\nnonsense\n{"event": "tilt"}\n')
    with pytest.raises(ValueError, match=r"line 2 of .* is no event"):
        read_journal(path)


def test_numbers_that_are_none_are_refused(tmp_path):
    with Journal(tmp_path / "j") as journal, pytest.raises(ValueError, match="JSON"):
        journal.write("tilt", reading=float("nan"))
    assert read_journal(tmp_path / "j") == []
