"""The example of the page on acquisition runs as it is printed."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "acquisition.md"


def test_the_example_of_the_page_predicts_what_is_tracked(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    shift = np.asarray(names["prediction"].shift)
    assert abs(shift[1] - 40_800) < 3 * names["prediction"].sigma[1] < 3_000
    assert abs(shift[0] - 20_000) < 200
    assert capsys.readouterr().out
