"""Errors as one line, and lists that are cut off."""

from __future__ import annotations

import pytest

from sap2.errors import InputError, input_error_line, list_some


@pytest.mark.parametrize("kind", ["sap2.errors.InputError", "sap2.ms_swift.template.RowTooLongError"])
def test_error_line_of_a_workers_traceback(kind):
    error = InputError(f"Caught InputError in worker 0.\nTraceback …\n  File …\n{kind}: row u7: x.wav Error: bad\n")
    assert input_error_line(error) == "row u7: x.wav Error: bad"
    assert input_error_line(InputError("row 'An Error: x': bad")) == "row 'An Error: x': bad"
    assert input_error_line(InputError("row u7: bad")) == "row u7: bad"
    assert input_error_line(InputError()) == "bad input"


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")]
)
def test_many_names_are_cut_off(names, text):
    assert list_some(names, shown=2) == text
