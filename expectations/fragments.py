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
    return (
        "CASE "
        + " ".join(f"WHEN {condition} THEN '{name}'" for name, condition in conditions.items())
        + " END"
    )


def joined(columns: str) -> str:
    """The values of columns (`a, b`) joined by '|'; null when one is."""
    return "concat(" + ", '|', ".join(columns.split(", ")) + ")"


def relative_humidity(temp: str, dewp: str) -> str:
    """Percent, from temperature and dew point in Fahrenheit (August-Roche-Magnus)."""
    pressure = {
        column: f"exp(17.625 * ({column} - 32) / 1.8 / (243.04 + ({column} - 32) / 1.8))"
        for column in (temp, dewp)
    }
    return f"100 * {pressure[dewp]} / {pressure[temp]}"
