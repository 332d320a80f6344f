from __future__ import annotations

import pytest

from expectations import gate


@pytest.fixture
def one_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the gate look up the rows of one failed expectation alone.

    For tests that ask which of many fail: each that is explained costs Spark three questions.
    """
    monkeypatch.setattr(gate, "MAX_EXPLAINED", 1)
