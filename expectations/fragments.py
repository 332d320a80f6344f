"""SQL fragments for derived columns.

Each tells what is wrong with a row, and is null or 0 when nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping


def clock_error(instant: str, day: str, zone: str) -> str:
    """Seconds between what the zone's clocks show at an instant, and the `hour` of a local day."""
    return (
        f"unix_timestamp(from_utc_timestamp({instant}, '{zone}')) - "
        f"unix_timestamp(CAST({day} AS TIMESTAMP)) - hour * 3600"
    )


def midnight_error(instant: str, day: str, zone: str) -> str:
    """Seconds between an instant and the midnight that ends a local day.

    The scoring moment of that day's night.
    """
    return (
        f"unix_timestamp({instant}) - "
        f"unix_timestamp(to_utc_timestamp(CAST(date_add({day}, 1) AS TIMESTAMP), '{zone}'))"
    )


def first_true(conditions: Mapping[str, str]) -> str:
    """The name of the first condition that holds, or null."""
    cases = [f"WHEN {condition} THEN '{name}'" for name, condition in conditions.items()]
    return f"CASE {' '.join(cases)} END"


def joined(columns: str) -> str:
    """The values of columns (`a, b`) joined by '|', as transforms join them; null when one is."""
    names = columns.split(", ")
    texts = names if len(names) == 1 else map(_escaped, names)
    # concat, unlike concat_ws, is null when one of its values is.
    values = ", '|', ".join(texts)
    return f"concat({values})"


def _escaped(column: str) -> str:
    # Four make two: in SQL's texts a backslash escapes, and in a regular expression's too.
    return rf"regexp_replace({column}, '[|\\\\]', '\\\\$0')"


def relative_humidity(temp: str, dewp: str) -> str:
    """Percent, from temperature and dew point in Fahrenheit (August-Roche-Magnus)."""
    return f"100 * {_vapour_pressure(dewp)} / {_vapour_pressure(temp)}"


def _vapour_pressure(fahrenheit: str) -> str:
    """Saturation pressure over water, up to a factor that a ratio cancels."""
    celsius = f"({fahrenheit} - 32) / 1.8"
    # Coefficients of Alduchov and Eskridge (1996).
    return f"exp(17.625 * {celsius} / (243.04 + {celsius}))"
