"""What people are told of while nobody looks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Channel = Literal["log", "webhook", "email"]
"""Where it is told: `jobs/notifications/<channel>.py`."""


class Event(StrEnum):
    """What happened."""

    STAGE_REFUSED = "stage_refused"
    """The data or the model was judged and refused, or what a run was asked for; a retry would be
    refused again."""
    STAGE_FAILED = "stage_failed"
    """A fault, after the last retry."""
    FEED_LATE = "feed_late"
    """A feed's files have not landed by the deadline; the night waits on."""
    FEED_MISSING = "feed_missing"
    """The night has ended because a feed's files have not landed."""
    NIGHT_DONE = "night_done"
    """Every stage of the night has succeeded."""
    MODEL_PROMOTED = "model_promoted"
    """A new model serves."""
    MODEL_AWAITING = "model_awaiting"
    """A new model would serve if a person agreed."""
    DRIFT_FOUND = "drift_found"
    """Features, predictions or quality are no longer as they were."""
    DRIFT_ENDED = "drift_ended"
    """They are again, or what is new has become usual."""
    APPROVAL_EXPIRED = "approval_expired"
    """A model awaited a person for longer than its pipeline allows, and does not serve."""
    ALIAS_MOVED = "alias_moved"
    """Somebody has moved MLflow's alias of the model that serves by hand, and it was put back."""
    PREDICTIONS_LATE = "predictions_late"
    """The predictions of a night are not there by the time that its pipeline declares."""
    RECOVERED = "recovered"
    """What people were told of one or more `ALARMS` is right again."""
    MAINTENANCE_FAILED = "maintenance_failed"
    """Something could not be cleaned and grows; the rest was, unless it could not begin, or was
    ended."""
    WAREHOUSE_FAILED = "warehouse_failed"
    """Days were published in the lake, and could not be to PostgreSQL."""
    DECLARATION_UNREADABLE = "declaration_unreadable"
    """The declaration of a pipeline cannot be read: none of its nights begins, and no task of it
    can tell that."""


ALARMS = frozenset(
    {Event.STAGE_REFUSED, Event.STAGE_FAILED, Event.FEED_MISSING, Event.PREDICTIONS_LATE}
)
"""What a night that is done puts right."""
OF_NO_RUN = (Event.DECLARATION_UNREADABLE, Event.MAINTENANCE_FAILED)
"""What happens beside the runs of a pipeline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """An event of a run, in words."""

    event: Event
    pipeline: str
    days: str
    """One day, or the first and last of a range: `2013-04-01`, `2013-01-01..2013-03-31`. Of what
    is no run's the day of today. Empty: of none, where what a run was asked for was refused."""
    run_id: str
    """Of what is no run's, such as maintenance, it is empty."""
    stage: str | None
    """Or `plan`, which comes before them in Airflow; None for an event of the whole night, or of
    none."""
    message: str
    """For people: why, and the way out."""
    page: str | None = None
    """Address at which a person sees more in the Airflow UI: the run, or a page about it."""
    report: str | None = None
    """Address of the data-quality report."""
