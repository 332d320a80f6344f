"""Fifty questions have the same answer from the lake, by DuckDB, and from PostgreSQL.

In the SQL that both speak; about days, time zones, nulls, decimals, numbers that are none, texts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from jobs.lake import sql
from tests.jobs.warehouse.lake import FIRST, PIPELINE, SUMS, Lake, predictions

DAYS = [FIRST + timedelta(days=number) for number in range(40)]
TEXTS = ("Zoë", "ZOË", "日本🛫", "", None, "a%b_c", "O'Hare", 'say "x"', "NULL", "\\N", " padded ")
WIDE = pa.decimal128(38, 0)
P, S = "toy.predictions", "toy.sums"
QUESTIONS = (
    f"SELECT count(*) FROM {P}",
    f"SELECT count(note), count(amount), count(code_version) FROM {P}",
    f"SELECT count(DISTINCT note) FROM {P}",
    f"SELECT reading_date, count(*) FROM {P} GROUP BY reading_date ORDER BY 1",
    f"SELECT min(reading_date), max(reading_date) FROM {P}",
    f"SELECT id, prediction FROM {P} WHERE reading_date = '{FIRST}' ORDER BY id",
    f"SELECT avg(prediction) FROM {P}",
    f"SELECT sum(prediction) FROM {P} WHERE id BETWEEN 1 AND 2",
    f"SELECT max(prediction) - min(prediction) FROM {P}",
    f"SELECT id, avg(prediction) FROM {P} GROUP BY id HAVING count(*) > 3 ORDER BY id",
    f"SELECT extract(year FROM reading_date), count(*) FROM {P} GROUP BY 1 ORDER BY 1",
    f"SELECT extract(dow FROM reading_date), count(*) FROM {P} GROUP BY 1 ORDER BY 1",
    f"SELECT DISTINCT reading_date - date '2013-01-01' FROM {P} ORDER BY 1",
    f"SELECT count(*) FROM {P} WHERE reading_date >= date '2013-02-01'",
    f"SELECT count(*) FROM {P} WHERE reading_date < date '2013-01-05' + 7",
    f"SELECT DISTINCT predicted_at FROM {P}",
    f"SELECT DISTINCT predicted_at AT TIME ZONE 'America/New_York' FROM {P}",
    f"SELECT DISTINCT extract(hour FROM predicted_at AT TIME ZONE 'Asia/Tokyo') FROM {P}",
    f"SELECT DISTINCT CAST(predicted_at AT TIME ZONE 'Pacific/Auckland' AS date) FROM {P}",
    f"SELECT count(*) FROM {P} WHERE predicted_at < timestamptz '2013-01-05 00:00:00+00'",
    f"SELECT n, moment FROM {S} ORDER BY n",
    f"SELECT n, moment AT TIME ZONE 'America/New_York' FROM {S} ORDER BY n",
    f"SELECT n, local FROM {S} ORDER BY n",
    f"SELECT n, local AT TIME ZONE 'America/New_York' FROM {S} ORDER BY n",
    f"SELECT date_trunc('day', moment AT TIME ZONE 'UTC'), count(*) FROM {S} GROUP BY 1 ORDER BY 1",
    f"SELECT count(*) FROM {P} WHERE code_version IS NULL",
    f"SELECT count(*) FROM {P} WHERE note IS NOT NULL AND amount IS NULL",
    f"SELECT coalesce(note, 'none'), count(*) FROM {P} GROUP BY 1 ORDER BY 2, 1",
    f"SELECT count(*) FROM {P} WHERE NOT (note = '')",
    f"SELECT count(*) FROM {P} WHERE note = '' OR note IS NULL",
    f"SELECT n, CASE WHEN is_it THEN 1 WHEN NOT is_it THEN 0 END FROM {S} ORDER BY n",
    f"SELECT sum(CASE WHEN is_it IS NULL THEN 1 ELSE 0 END) FROM {S}",
    f"SELECT n, money FROM {S} ORDER BY n",
    f"SELECT sum(money), min(money), max(money) FROM {S}",
    f"SELECT n, money * 3 FROM {S} WHERE money > 0.01 ORDER BY n",
    f"SELECT n, big FROM {S} ORDER BY n",
    f"SELECT sum(money) FROM {S} WHERE text LIKE '%o%'",
    f"SELECT count(*) FROM {P} WHERE amount = 'NaN'::double precision",
    f"SELECT count(*) FROM {P} WHERE amount > 1e300",
    f"SELECT n, real FROM {S} ORDER BY n",
    f"SELECT max(n) FROM {S} WHERE real > 'Infinity'::double precision",
    f"SELECT n, text FROM {S} ORDER BY n",
    f"SELECT n, length(text) FROM {S} ORDER BY n",
    f"SELECT n FROM {S} WHERE text = 'Zoë' ORDER BY n",
    f"SELECT n FROM {S} WHERE text LIKE 'a!%b!_c' ESCAPE '!' ORDER BY n",
    f"SELECT n FROM {S} WHERE text = 'O''Hare' OR text = '\\N' ORDER BY n",
    f"SELECT n, text || '🛬' FROM {S} ORDER BY n",
    f"SELECT n, trim(text), position('本' IN text) FROM {S} ORDER BY n",
    f"SELECT p.id, count(s.n) FROM {P} p LEFT JOIN {S} s ON s.n = p.id GROUP BY p.id ORDER BY p.id",
    f"""SELECT reading_date, rank() OVER (ORDER BY sum(prediction) DESC, reading_date)
        FROM {P} GROUP BY reading_date ORDER BY 1""",
    f"""WITH days AS (SELECT reading_date AS day, avg(prediction) AS mean FROM {P} GROUP BY 1)
        SELECT day, mean - lag(mean) OVER (ORDER BY day) FROM days ORDER BY day""",
    f"SELECT CAST(n AS integer) FROM {S} EXCEPT SELECT id FROM {P} ORDER BY 1",
)


def sums() -> pa.Table:
    """Values of every kind, and none."""
    count = len(TEXTS)
    began = datetime(2013, 3, 10, 4, 30, tzinfo=UTC)
    moments = [began + timedelta(hours=number) for number in range(count - 1)]
    clock = [moment.replace(tzinfo=None) for moment in moments]
    money = [Decimal(number * 333 - 1000) / 100 for number in range(count - 1)]
    reals = [0.1 + 0.2, math.nan, math.inf, -math.inf, 5e-324]
    reals += [-0.0, 1e308, 1 / 3, 2.5, 1.0]
    answers = [False, True, None]
    return pa.table(
        {
            "landed_date": pa.array([FIRST] * count),
            "n": pa.array(range(count), pa.int64()),
            "is_it": pa.array([answers[n % 3] for n in range(count)]),
            "money": pa.array([*money, None], pa.decimal128(9, 2)),
            "big": pa.array(
                [*(Decimal(10**30 + n) for n in range(count - 1)), None],
                WIDE,
            ),
            "real": pa.array([*reals, None], pa.float64()),
            "moment": pa.array([*moments, None], pa.timestamp("us", tz="UTC")),
            "local": pa.array([*clock, None], pa.timestamp("us")),
            "text": pa.array(TEXTS),
        }
    )


@pytest.fixture
def both(lake: Lake) -> Lake:
    """A lake with predictions and sums, both of them in PostgreSQL."""
    lake.pipeline = replace(PIPELINE, derived=(SUMS,))
    lake.publish({day: predictions(day, str(day)) for day in DAYS})
    lake.publish({FIRST: sums()}, "sums")
    assert [caught.faults for caught in lake.catch_up_all()] == [(), ()]
    return lake


def test_both_give_the_same_answer(both: Lake) -> None:
    assert len(QUESTIONS) >= 50
    wrong = []
    for question in QUESTIONS:
        _, rows = sql.query(both.environment, question)
        in_lake = list(map(comparable, rows))
        in_postgresql = list(map(comparable, both.ask(question.replace("%", "%%"))))
        if in_lake != in_postgresql:
            wrong.append(f"{question}\n  lake       {in_lake}\n  postgresql {in_postgresql}")
        assert in_lake, question
    assert wrong == [], "\n".join(wrong)


def comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_plain, row))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    if isinstance(value, date | str | bool) or value is None:
        return value
    return plain_number(value)


def plain_number(value: Any) -> int | str:
    """One kind of number: a sum of integers is an integer here and a decimal there."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    number = float(value)
    # Both add up in an order of their own.
    return value if isinstance(value, int) else "NaN" if math.isnan(number) else f"{number:.12g}"
