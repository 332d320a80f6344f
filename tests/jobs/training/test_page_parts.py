from __future__ import annotations

import pytest

from jobs.training.page_parts import shown


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, ""),
        (0.0, "0.0000"),
        (12.34567, "12.3457"),
        (0.00123456, "0.0012"),
        (-0.000123456, "-0.0001235"),
        (1234567, "1,234,567"),
        ("AA", "AA"),
    ],
)
def test_a_small_number_is_shown_by_digits_that_count(value: object, told: str) -> None:
    assert shown(value) == told
