from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from jobs.training.families.light import Model
from jobs.training.families.linear import Linear, design_columns
from jobs.training.families.neural_network import Network, network
from jobs.training.scoring import Scorer
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.errors import NightshiftError
from tests.jobs.training.small import FIRST, NETWORK, data_of, rows_of, with_column

DATA = data_of()
TASK = task_of("binary_classification")


def _network() -> Model:
    return Network(keras_model=network.build(DATA.encoding, NETWORK, TASK))


def _linear() -> Model:
    columns = len(design_columns(DATA.encoding))
    coefficients = np.random.default_rng(1).normal(size=columns)
    return Linear(task=TASK, encoding=DATA.encoding, intercept=0.1, coefficients=coefficients)


@pytest.mark.parametrize("make", [_network, _linear])
def test_a_score_does_not_depend_on_the_rows_around_it(make: object) -> None:
    assert callable(make)
    scorer = Scorer(model=make(), encoding=DATA.encoding)
    # More than one chunk of rows.
    rows = rows_of(Days.of(FIRST), per_day=5000)
    together = scorer.score(rows)
    assert len(together) == 5000
    first = scorer.score(rows.slice(0, 700))
    last = scorer.score(rows.slice(4500))
    np.testing.assert_array_equal(together[:700], first)
    np.testing.assert_array_equal(together[4500:], last)


def test_no_rows_have_no_scores() -> None:
    scorer = Scorer(model=_linear(), encoding=DATA.encoding)
    no_rows = rows_of(Days.of(FIRST)).slice(0, 0)
    assert len(scorer.score(no_rows)) == 0


def test_a_column_that_is_no_number_any_more_is_named() -> None:
    scorer = Scorer(model=_linear(), encoding=DATA.encoding)
    rows = rows_of(Days.of(FIRST))
    texts = pa.array(["1.5"] * (len(rows) - 1) + ["north"])
    days = pa.array([FIRST] * len(rows), pa.date32())
    for kind, values in (("string", texts), ("date32", days)):
        message = rf"^The model reads 'gappy' as a number, and the rows have it as {kind}"
        with pytest.raises(NightshiftError, match=message):
            scorer.score(with_column(rows, "gappy", values))
    lists = pa.array([["AA"]] * len(rows))
    with pytest.raises(NightshiftError, match="^The model cannot read the rows as they are now"):
        scorer.score(with_column(rows, "line", lists))
