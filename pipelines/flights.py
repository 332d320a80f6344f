"""Which of tomorrow's flights will be late?

Every flight that left New York in 2013, hourly weather, the planes.
"""

from __future__ import annotations

from datetime import date

from pipelines.spec import Column, Feed, Pipeline, Table, Training

_DEPARTURE = (
    Column(
        name="flight_date", type="date", required=True, doc="Local day of the scheduled departure."
    ),
    Column(name="carrier", required=True, doc="Two-letter code of the airline."),
    Column(name="flight", type="int", required=True, doc="Flight number."),
    Column(
        name="tailnum",
        doc="Registration of the plane; null when cancelled before one was assigned.",
    ),
    Column(name="origin", required=True, doc="EWR, JFK or LGA."),
    Column(name="dest", required=True, doc="Code of the destination airport."),
    Column(
        name="sched_dep_time", type="int", required=True, doc="Scheduled local departure, HHMM."
    ),
    Column(
        name="sched_arr_time",
        type="int",
        required=True,
        doc="Scheduled local arrival at the destination, HHMM.",
    ),
    Column(name="distance", type="int", required=True, doc="Miles."),
    Column(name="hour", type="int", required=True, doc="Hour of sched_dep_time."),
    Column(name="minute", type="int", required=True, doc="Minute of sched_dep_time."),
    Column(
        name="time_hour",
        type="timestamp",
        required=True,
        doc="The scheduled hour as a UTC instant.",
    ),
)
_OUTCOME = (
    Column(
        name="dep_time",
        type="int",
        doc="Actual local departure, HHMM (2400 is midnight); null when cancelled.",
    ),
    Column(name="dep_delay", type="int", doc="Minutes; negative is early."),
    Column(name="arr_time", type="int", doc="Actual local arrival, HHMM (2400 is midnight)."),
    Column(name="arr_delay", type="int", doc="Minutes; null when cancelled or diverted."),
    Column(name="air_time", type="int", doc="Minutes."),
)
_FLIGHT_KEY = ("flight_date", "carrier", "flight", "origin")

FLIGHTS = Feed(
    name="flights",
    path="flights/{date}.csv",
    columns=_DEPARTURE + _OUTCOME,
    key=_FLIGHT_KEY,
    first_day=date(2013, 1, 1),
    doc=(
        "Outcomes that became known on landed_date: "
        "flights of that day, and of the day before that landed after midnight."
    ),
)
SCHEDULE = Feed(
    name="schedule",
    path="schedule/{date}.csv",
    columns=_DEPARTURE,
    key=_FLIGHT_KEY,
    last_day=date(2013, 12, 30),
    doc="Flights scheduled for the day after landed_date, without any outcome.",
)
WEATHER = Feed(
    name="weather",
    path="weather/{date}.csv",
    columns=(
        Column(name="origin", required=True),
        Column(
            name="weather_date", type="date", required=True, doc="Local day of the observation."
        ),
        Column(name="hour", type="int", required=True, doc="Local hour."),
        Column(name="temp", type="double", doc="Degrees Fahrenheit."),
        Column(name="dewp", type="double", doc="Dew point, degrees Fahrenheit."),
        Column(name="humid", type="double", doc="Relative humidity, percent."),
        Column(name="wind_dir", type="int", doc="Degrees."),
        Column(name="wind_speed", type="double", doc="Miles per hour."),
        Column(name="wind_gust", type="double", doc="Miles per hour."),
        Column(name="precip", type="double", doc="Inches in the hour."),
        Column(name="pressure", type="double", doc="Millibars at sea level."),
        Column(name="visib", type="double", doc="Visibility, miles."),
        Column(name="time_hour", type="timestamp", required=True, doc="The hour as a UTC instant."),
    ),
    key=("origin", "time_hour"),
    first_day=date(2013, 1, 1),
    doc="Hourly observations of local day landed_date at the three airports.",
)
PLANES = Feed(
    name="planes",
    path="planes.csv",
    columns=(
        Column(name="tailnum", required=True),
        Column(name="year", type="int", doc="Year of manufacture."),
        Column(name="type"),
        Column(name="manufacturer"),
        Column(name="model"),
        Column(name="engines", type="int"),
        Column(name="seats", type="int"),
        Column(name="speed", type="int", doc="Cruising speed, miles per hour."),
        Column(name="engine"),
    ),
    key=("tailnum",),
    doc="Every registered plane that is known, as of landed_date.",
)
AIRPORTS = Feed(
    name="airports",
    path="airports.csv",
    columns=(
        Column(name="faa", required=True, doc="Code of the airport."),
        Column(name="name"),
        Column(name="lat", type="double"),
        Column(name="lon", type="double"),
        Column(name="alt", type="int", doc="Feet."),
        Column(name="tz", type="int", doc="Hours from UTC, standard time."),
        Column(name="dst"),
        Column(name="tzone", doc="IANA time zone."),
    ),
    key=("faa",),
    doc="Airports of the country, as of landed_date.",
)

ROLLING_DAYS = (7, 28)
"""Windows of the rolling features, in days that end with the scoring day."""
GRAINS = {
    "co": ("carrier", "origin"),
    "dest": ("dest",),
    "route": ("origin", "dest"),
    "tail": ("tailnum",),
    "oh": ("origin", "hour"),
    "ap": ("origin",),
}
"""Entities whose past is summed: name -> columns. A row's key is their values joined by '|'."""
_ROLLED = ("co", "dest", "route", "tail", "oh")
_ROLLING_FEATURES = tuple(
    f"{grain}_{stat}_{days}"
    for grain in _ROLLED
    for stat in ("n", "late", "delay", "canc")
    for days in ROLLING_DAYS
)

PIPELINE = Pipeline(
    name="flights",
    title="Which of tomorrow's flights will be late?",
    owner="flight-operations",
    timezone="America/New_York",
    schedule="30 4 * * *",
    first_day=date(2012, 12, 31),
    last_day=date(2013, 12, 31),
    feeds=(FLIGHTS, SCHEDULE, WEATHER, PLANES, AIRPORTS),
    derived=(
        Table(
            name="departures",
            made_by="transform",
            reads=("schedule", "airports"),
            key=_FLIGHT_KEY,
            doc=(
                "The scheduled flights of the next day "
                "with everything that the schedule alone tells."
            ),
        ),
        Table(
            name="tiles",
            made_by="transform",
            reads=("flights",),
            key=("grain", "key"),
            doc=(
                "Additive daily sums of outcomes by grain and key, "
                "counted on the day on which they became known."
            ),
        ),
        Table(
            name="rolling",
            made_by="transform",
            reads=("tiles",),
            window_days=max(ROLLING_DAYS),
            key=("grain", "key"),
            doc=(
                "Rates and means over the windows that end with landed_date, "
                "for every key with a row in the longest."
            ),
        ),
        Table(
            name="weather_hourly",
            made_by="transform",
            reads=("weather",),
            key=("origin", "observed_at"),
            doc="Cleaned hourly weather with the instant at which it is known.",
        ),
        Table(
            name="weather_daily",
            made_by="transform",
            reads=("weather_hourly",),
            key=("origin",),
            doc="Sums and extremes of the local day.",
        ),
    ),
    entity=_FLIGHT_KEY,
    carried=("dest", "sched_dep_time"),
    prediction="late_probability",
    training=Training(
        label="late",
        numeric=(
            *_ROLLING_FEATURES,
            *("ap_late_1", "ap_delay_1", "ap_depdelay_1", "ap_canc_1"),
            *("w_temp", "w_dewp", "w_humid", "w_wind_speed", "w_precip", "w_pressure", "w_visib"),
            *("wd_precip", "wd_visib_min", "wd_wind_max"),
            *("plane_age", "seats", "plane_known"),
            *(
                "dow",
                "month",
                "hour",
                "sched_min",
                "distance",
                "block",
                "hol",
                "n_origin_hour",
                "n_origin_day",
                "tail_seq",
            ),
        ),
        categorical=("carrier", "origin", "dest"),
        baseline=("carrier", "origin", "dest"),
        slices=("carrier", "origin"),
    ),
)
