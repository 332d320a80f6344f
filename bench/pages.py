"""Seconds of each of our pages in Airflow's UI, with a year of nights of flights on record.

`python -m bench.pages` starts a platform of its own and asks its API server as a browser does, by
loopback and with a login; the record is written as the runs of a year would have left it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.request import Request

from bench import recorded_year
from bench.home import Home
from jobs.output import show
from jobs.services.airflow import NO_PROXY
from jobs.services.airflow_api import Airflow, own_airflow
from pipelines.environment import PAGES, PAGES_ADDRESS
from pipelines.flights import PIPELINE as FLIGHTS

_PREDICTIONS = 900
"""For the day after each night, about as many as flights has."""


def main() -> int:
    """Measure, and print a row for each page."""
    parser = argparse.ArgumentParser(prog="bench.pages", description=__doc__)
    parser.add_argument("--times", type=int, default=7, help="how often each page is asked for")
    times = parser.parse_args().times
    with TemporaryDirectory() as folder:
        home = Home(Path(folder))
        recorded_year.write(home.environment, FLIGHTS, recorded_year.YEAR)
        recorded_year.write_predictions(home.environment, FLIGHTS, recorded_year.YEAR, _PREDICTIONS)
        with home.up():
            airflow = own_airflow(home.environment)
            rows = [_row(airflow, page, times) for page in PAGES]
    show(("page", "seconds", "least", "most", "kilobytes"), rows, "table")
    return 0


def _row(airflow: Airflow, page: str, times: int) -> tuple[object, ...]:
    # The first imports what the page needs.
    _ask(airflow, page)
    asked = [_ask(airflow, page) for _ in range(times)]
    seconds = [one for one, _ in asked]
    figures = (median(seconds), min(seconds), max(seconds))
    _, size = asked[-1]
    return (PAGES[page], *[f"{one:.3f}" for one in figures], round(size / 1000))


def _ask(airflow: Airflow, page: str) -> tuple[float, int]:
    """Seconds until all of the page is there, and its bytes."""
    address = f"{airflow.url}{PAGES_ADDRESS}/{FLIGHTS.name}/{page}"
    request = Request(address, headers={"Authorization": f"Bearer {airflow.token()}"})
    started = time.monotonic()
    with NO_PROXY.open(request) as response:
        content = response.read()
    return time.monotonic() - started, len(content)


if __name__ == "__main__":
    raise SystemExit(main())
