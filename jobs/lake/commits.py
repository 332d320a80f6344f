"""Publishing: one commit of delta-rs that names staged files and drops those of the days replaced.

No row is copied. The commit is put-if-absent: it becomes the version after the one that was read,
or it fails, and then everything is looked at again. So any number of processes may publish at once,
on a disk and on an object store, and a late one is told so.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from jobs.lake import opened, publications
from jobs.lake.arrow_files import arrow_files
from jobs.lake.data_files import altered, day_files, days_that_lost_files
from jobs.lake.knowledge import Knowledge, newest_version
from jobs.lake.locations import maker, partition, path, sql_name
from jobs.lake.log import is_table
from jobs.lake.partitions import nullable
from jobs.lake.publications import Input, Publication
from jobs.version import code_version
from pipelines.days import Days
from pipelines.errors import NightshiftError
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from jobs.lake.data_files import DataFile
    from jobs.lake.staging import Staging
    from pipelines.run import Run

_MOST_TRIES = 100
"""Each lost to a commit of another process; with as many processes at once, all have their turn."""
_LONGEST_PAUSE_SECONDS = 0.05
_MILLISECONDS = 1000
"""A second, as the log counts."""
_PROPERTIES = {
    # A pin names a version: the log must tell of it as long as the table lives.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    # A reader reads the last checkpoint and the commits after it: with 50 of them a table of 300
    # days takes 17 ms to be opened, after a checkpoint 7, and a checkpoint takes 17 to be written.
    "delta.checkpointInterval": "10",
}
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


_WITHOUT_ZONE = "timestamp_ntz"
"""Delta's type of moments without a zone."""
_FEATURE_WITHOUT_ZONE = "timestampNtz"
"""What the protocol of a table must name that has such a column."""
_PARTS = ("elementType", "keyType", "valueType")
"""What Delta calls the types that a list and a map are made of."""
_Field = dict[str, Any]
"""A column as Delta writes it in JSON."""
_Types = tuple[object, object]
"""Of a column in the table, and in the rows to be published."""


class Fenced(NightshiftError):
    """This attempt must not publish: another has since it began, or what it read is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a publication left behind."""

    rows: int
    """Rows of the run's days, now visible."""
    version: int
    """Delta version in which they are visible."""
    changed: bool
    """False when the same rows were already there, so that nothing was committed."""
    kept: tuple[Publication, ...] = ()
    """What stays published of days for which other rows were staged."""
    replaced: tuple[date, ...] = ()
    """Days of which other rows were published before."""
    rows_before: int = 0
    """How many rows these days had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What a publication commits and records, by the version that the table had."""

    table: DeltaTable | None
    """In that version; None: there is none yet."""
    told: publications.Told
    """What is on record of it."""
    arrived: Sequence[Publication]
    """What this very publishing has committed already."""
    found: Sequence[Publication]
    """Days of before there was a record."""
    staging: Staging
    """The rows, without the days that are kept."""
    differing: Sequence[date]
    """The days that the commit replaces."""
    lost: Collection[date]
    """Those of them whose rows are the same, and lack a file."""
    kept: Sequence[date]
    """Days for which other rows were staged, and that stay as they were published."""
    made: Sequence[Publication]
    """What is recorded of the days."""
    schema: Schema | None
    """The table's columns after the commit; None: there is nothing to commit."""


def publish(
    run: Run,
    name: str,
    staging: Staging,
    *,
    keep_published: bool = False,
) -> Published:
    """Make staged rows visible in one commit that replaces exactly the days that differ.

    Args:
        run: Who publishes.
        name: The table.
        staging: The rows.
        keep_published: Replace no day that was published, but tell which of them differ.

    Raises:
        Fenced: a later attempt has published one of the days, or what the rows were made from has
            been replaced since, or lost.
        NightshiftError: a column has another type than in the table, of which days stay.
    """
    for _ in range(_MOST_TRIES):
        try:
            return _try_to_publish(run, name, staging, keep_published)
        except CommitFailedError:
            # By chance, so that losers do not meet again.
            time.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))
    raise NightshiftError(
        f"{sql_name(run, name)} for {staging.span}: {_MOST_TRIES} commits in a row lost against "
        "those of other processes. Nothing was published; run the stage again."
    )


def refuse_stage(run: Run, stagings: Mapping[str, Staging]) -> None:
    """Refuse tables of one stage as publishing them would, before any of them is published.

    For their attempt and their columns. A table that is alone is refused as it is published.

    Args:
        run: Who publishes.
        stagings: The rows by table.

    Raises:
        Fenced: a later attempt has published one of the days.
        NightshiftError: a column is not what the table may get.
    """
    if len(stagings) == 1:
        return
    for name, told in publications.told_of(run, stagings).items():
        staging = stagings[name]
        there = is_table(path(run, name))
        table = opened.newest(path(run, name)) if there else None
        known = publications.latest(told)
        differing = _differing(table, known, staging)
        _refuse_late(run, name, staging, [known[day] for day in differing if day in known])
        _schema(run, name, table, staging, differing)


def refuse_unpublishable(run: Run, name: str, staging: Staging) -> None:
    """Refuse rows as publishing them would, before anything of it is published.

    Raises:
        Fenced: a later attempt has published one of the days, or what the rows were made from has
            been replaced since.
        NightshiftError: their columns, or their files, are not what may be published.
    """
    _planned(run, name, staging, keep_published=False)


def refuse_another_partition(run: Run, name: str) -> None:
    """Refuse to make rows for a table whose days are told by another column than is declared.

    Raises:
        NightshiftError: the column was named anew since the table was first published.
    """
    if is_table(path(run, name)):
        _refuse_another_partition(run, name, opened.newest(path(run, name)))


def _refuse_another_partition(run: Run, name: str, table: DeltaTable) -> None:
    declared = partition(run, name)
    (column,) = table.metadata().partition_columns
    if column != declared:
        raise NightshiftError(
            f"{sql_name(run, name)}: the column that tells its days is declared as '{declared}', "
            f"and is '{column}' in the table, whose files lie by it: no table can change that. "
            f"Name the column '{column}' again, or give the pipeline another name, by which it "
            "begins anew."
        )


def confirm(
    run: Run,
    name: str,
    day: date,
    inputs: tuple[Input, ...],
    definition: str,
) -> None:
    """Record that rows in force follow from other inputs, or by another definition, just as well.

    Args:
        run: Who has found so.
        name: The table.
        day: Of the rows.
        inputs: What they follow from.
        definition: By which they do.
    """
    known = publications.in_force(run, name).get(day)
    # Tables of before there was a record have none.
    if known is None:
        return
    if (known.definition, _named(known.inputs)) == (definition, _named(inputs)):
        return
    again = replace(
        known,
        run_id=run.run_id,
        stage=run.doing.name,
        definition=definition,
        inputs=inputs,
        changed=False,
        code_version=code_version(),
        published_at=publications.now(known),
    )
    publications.record(run, name, [again])


def _try_to_publish(run: Run, name: str, whole: Staging, keep_published: bool) -> Published:
    plan = _planned(run, name, whole, keep_published)
    version = plan.table.version() if plan.table else -1
    made = plan.made
    if plan.schema:
        version += 1
        if plan.told.first_lost is not None:
            publications.forget_lost(run, name)
        _commit(run, name, plan, plan.schema)
        # What changed nothing stays in the version in which it came.
        made = [replace(one, version=version) if one.changed else one for one in made]
    if plan.found or made or plan.told.unrecorded:
        publications.record(run, name, [*plan.found, *made])
    if _comes_again(name, plan):
        publications.forget_made_anew(run, name, plan.staging.days)
    served = _last_changes(run, name, plan.kept)
    visible = [plan.staging.rows_of(day) for day in plan.staging.days]
    visible += [one.rows for one in served]
    told = [*plan.found, *plan.told]
    before = publications.latest(one for one in told if one not in plan.arrived)
    changed_days = {*plan.differing, *(one.day for one in plan.arrived)}
    # Days that lost a file have the same rows as before.
    had_others = changed_days & before.keys() - plan.lost
    replaced = [day for day in whole.days if day in had_others]
    return Published(
        rows=sum(visible),
        version=version,
        changed=bool(changed_days),
        kept=served,
        replaced=tuple(replaced),
        rows_before=sum(before[day].rows for day in replaced),
    )


def _comes_again(name: str, plan: _Plan) -> bool:
    """Whether days are there again that the table had lost."""
    # Of a quarantine its check tells which days were judged; what was served stays on record.
    if name == PREDICTIONS or name.endswith(QUARANTINE_SUFFIX):
        return False
    return not plan.told.lost.keys().isdisjoint(plan.staging.days)


def _planned(run: Run, name: str, whole: Staging, keep_published: bool) -> _Plan:
    """What publishing would do, after everything for which it would be refused."""
    # Opened before anything is asked: whatever is published after it makes the commit fail.
    table = _open(path(run, name))
    if table:
        _refuse_another_partition(run, name, table)
    told = publications.told(run, name)
    known = publications.latest(told)
    arrived = _arrived(run, told, whole)
    found = _unrecorded(table, known, whole.days)
    known |= {one.day: one for one in found}
    differing = _differing(table, known, whole)
    lost: set[date] = set()
    if table and not _retyped(table, whole.schema):
        held = [day for day in whole.days if day not in differing]
        redefined = {day for day in held if known[day].definition != whole.origin.definition}
        # What another program has deleted comes back by being made anew.
        lost = days_that_lost_files(table, path(run, name), held)
        if keep_published:
            # By name alone. Of a file that is gone nobody can tell whether it lacks a column.
            lost &= redefined
        renamed = _renamed(run, name, table, redefined - lost, whole.schema)
        changed = {*differing, *renamed, *lost}
        differing = [day for day in whole.days if day in changed]
    replaced = [day for day in differing if day in known]
    kept = replaced if keep_published else []
    differing = [day for day in differing if day not in kept]
    # As if nothing had been staged of what is kept.
    staging = replace(whole, days=tuple(day for day in whole.days if day not in kept))
    _refuse_late(run, name, staging, [known[day] for day in differing if day in known])
    made = _publications(run, name, staging, known, differing)
    schema = None
    if differing or table is None:
        _refuse_altered(run, name, staging, differing)
        schema = _schema(run, name, table, staging, differing)
    return _Plan(
        table=table,
        told=told,
        arrived=arrived,
        found=found,
        staging=staging,
        differing=differing,
        lost=lost,
        kept=kept,
        made=made,
        schema=schema,
    )


def _differing(
    table: DeltaTable | None,
    known: publications.Publications,
    staging: Staging,
) -> list[date]:
    """The days whose rows are others than those in force, or of another type."""
    if table and _retyped(table, staging.schema):
        # Days that say the same, such as nulls alone, must not stay behind in the old type.
        return list(staging.days)
    return [day for day in staging.days if not _holds(known, staging, day)]


def _arrived(run: Run, told: publications.Told, staging: Staging) -> list[Publication]:
    """What this very publishing has committed already: the store's reply to it was lost."""
    ours = (run.run_id, staging.attempt)
    changed = [one for one in told.unrecorded if one.changed]
    return [one for one in changed if (one.run_id, one.attempt) == ours]


def _renamed(
    run: Run,
    name: str,
    table: DeltaTable,
    days: Collection[date],
    schema: dict[str, Any],
) -> set[date]:
    """Of days with the same values by another definition those whose files lack a column.

    A checksum tells values and not names: a column that another definition calls otherwise may
    leave it as it was. A file outside of the table's folder is not looked into: its day counts.
    """
    if not days:
        return set()
    names = {field["name"] for field in schema["fields"]}
    names.discard(partition(run, name))
    files = arrow_files(path(run, name))
    found = set()
    for file in day_files(table, days.__contains__):
        if file.is_elsewhere:
            found.add(file.day)
            continue
        written = pq.read_schema(file.path, filesystem=files).names
        if not names <= set(written):
            found.add(file.day)
    return found


def _unrecorded(
    table: DeltaTable | None, known: publications.Publications, days: Iterable[date]
) -> list[Publication]:
    """Days that were published before there was a record, as far as the log tells of them.

    What their rows say is not known: whatever is staged differs from it.
    """
    if table is None or all(day in known for day in days):
        return []
    published = pa.table(table.get_add_actions(flatten=True))
    (column,) = table.metadata().partition_columns
    found = []
    for day in days:
        own = published.filter(pc.equal(published[f"partition.{column}"], pa.scalar(day)))
        if day not in known and len(own):
            found.append(_of_files(day, table.version(), own))
    return found


def _of_files(day: date, version: int, files: pa.Table) -> Publication:
    written_ms: int = pc.max(files["modification_time"]).as_py()
    return Publication(
        day=day,
        version=version,
        attempt=0,
        run_id="",
        stage="",
        rows=pc.sum(files["num_records"]).as_py() or 0,
        checksum="",
        definition="",
        inputs=(),
        changed=True,
        code_version="",
        published_at=datetime.fromtimestamp(written_ms / _MILLISECONDS, UTC),
    )


def _last_changes(
    run: Run,
    name: str,
    days: Collection[date],
) -> tuple[Publication, ...]:
    """Of each day the publication that brought the rows which are in force, oldest day first."""
    if not days:
        return ()
    # Not the one in force: a later run may have confirmed what an earlier one published.
    revisions = publications.revisions(run.environment, sql_name(run, name))
    found = publications.latest(revisions)
    return tuple(found[day] for day in sorted(days))


def _open(table: str) -> DeltaTable | None:
    return DeltaTable(table) if is_table(table) else None


def _holds(known: publications.Publications, staging: Staging, day: date) -> bool:
    """Whether the rows of the day are in force already."""
    if day not in known:
        return False
    one = known[day]
    staged = (staging.rows_of(day), staging.checksum(day))
    return (one.rows, one.checksum) == staged


def _refuse_late(run: Run, name: str, staging: Staging, replaced: list[Publication]) -> None:
    for one in replaced:
        where = f"{sql_name(run, name)} for {one.day}"
        if one.attempt > staging.attempt:
            raise Fenced(
                f"{where} was published by a later run than "
                f"{run.run_id}, namely {one.run_id}: this one changed nothing."
            )
        if one.attempt == staging.attempt:
            stages = dict.fromkeys([maker(run, name), run.doing.name])
            again = " ".join(f"--stage {stage}" for stage in stages)
            # Which of the two it is, the number of an attempt cannot tell.
            raise Fenced(
                f"{where}: other rows of the same staging, which was judged otherwise, or of one "
                f"that was made at the same time, were published already, by {one.run_id}: this "
                f"run changed nothing. To publish what holds now, make it anew: {again}"
            )


def _refuse_altered(run: Run, name: str, staging: Staging, days: Collection[date]) -> None:
    """Refuse files that are others than those which were staged, and judged since."""
    published = set(map(str, days))
    files = [file for file in staging.files if file.day in published]
    found = altered(path(run, name), staging.folder, files) if files else []
    if found:
        raise NightshiftError(
            f"{sql_name(run, name)} for {staging.span}: {len(found)} staged file(s) were changed "
            f"or removed since, such as {found[0]}. Nothing was published: what was judged is not "
            "what is there. Nobody but Nightshift may write into a table's folder. Run its stage "
            f"again: --stage {maker(run, name)}"
        )


def _publications(
    run: Run,
    name: str,
    staging: Staging,
    known: publications.Publications,
    differing: Collection[date],
) -> list[Publication]:
    """One for each day that differs, and for each that follows from other inputs than before."""
    checked = _Inputs(run, name)
    found: list[Publication] = []
    for day in staging.days:
        given = staging.origin.inputs.get(day, ())
        is_new = day in differing
        night = _night(run, name, day)
        known_day = staging.origin.known.get(day, night)
        one = Publication(
            day=day,
            version=0 if is_new else known[day].version,
            attempt=staging.attempt,
            run_id=run.run_id,
            stage=run.doing.name,
            rows=staging.rows_of(day),
            checksum=staging.checksum(day),
            definition=staging.origin.definition,
            inputs=tuple(checked.now(one, night) for one in given),
            changed=is_new,
            code_version=code_version(),
            published_at=publications.now(known.get(day)),
            known_day=known_day if is_new else _earlier(known_day, known[day].known_day),
        )
        if is_new or _says_more(one, known[day]):
            found.append(one)
    return found


def _says_more(one: Publication, known: Publication) -> bool:
    """Whether the same rows follow from something else, by an attempt that is not late."""
    return one.attempt > known.attempt and _origin(one) != _origin(known)


def _night(run: Run, name: str, day: date) -> date:
    """The night that writes that partition date; of refused rows, the day itself."""
    if name.endswith(QUARANTINE_SUFFIX):
        return day
    return run.pipeline.table(name).night_of(day)


def _earlier(staged: date, known: date | None) -> date | None:
    """From when rows are known that were in force already; None: always."""
    return known and min(staged, known)


def _origin(one: Publication) -> tuple[str, date | None, list[Input]]:
    return one.definition, one.known_day, _named(one.inputs)


def _named(inputs: Iterable[Input]) -> list[Input]:
    """What inputs say, whatever version it is in."""
    return [replace(of, version=None) for of in inputs]


class _Inputs:
    """Whether what rows were made from is still what is seen of it."""

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self._name = name

    def now(self, given: Input, night: date) -> Input:
        """The input with the version in which it is in force.

        Args:
            given: What rows were made from.
            night: Theirs.

        Raises:
            Fenced: other rows are seen by now; or it has lost the night's own.
        """
        table = self._knowledge.table_of(given)
        if table is None:
            return given
        if self._knowledge.digest(given) != given.digest:
            raise Fenced(
                f"{sql_name(self._run, self._name)} for {self._run.days} was made from rows of "
                f"{given.name} for {Days(given.first_day, given.last_day)} that have been replaced "
                "since: nothing of it was published. Run its stage again."
            )
        if given.last_day == night and self._knowledge.has_lost(table, night):
            # Of days before it a night may lack rows, as it may have been made over a gap.
            raise Fenced(
                f"{sql_name(self._run, self._name)} for {night} was made without {given.name} of "
                f"that day, which {path(self._run, table)} had and has lost: nothing of it was "
                "published. Have that folder back from a backup, or have the night make its rows "
                f"anew: nightshift run {self._run.pipeline.name} --date {night}"
            )
        return replace(given, version=newest_version(self._knowledge.latest(table)))

    @cached_property
    def _knowledge(self) -> Knowledge:
        # Each table once, for all of the days.
        return Knowledge(self._run)


def _commit(run: Run, name: str, plan: _Plan, schema: Schema) -> None:
    column = partition(run, name)
    replaced = set(map(str, plan.differing))
    added = [_add(column, file) for file in plan.staging.files if file.day in replaced]
    committed = [one for one in plan.made if one.changed]
    properties = CommitProperties(
        custom_metadata=publications.to_metadata(committed),
        # A commit that delta-rs tries again after another's would be one that we have not checked.
        max_commit_retries=0,
    )
    if plan.table is None:
        _create(run, name, schema, added, properties)
        return
    # Its type asks for a list of both kinds.
    actions: list[AddAction | RemoveAction] = [*added]
    plan.table.create_write_transaction(
        actions,
        mode="overwrite",
        schema=schema,
        partition_by=[column],
        partition_filters=[(column, "in", sorted(replaced))],
        commit_properties=properties,
        post_commithook_properties=_HOOKS,
    )


def _create(
    run: Run, name: str, schema: Schema, added: list[AddAction], properties: CommitProperties
) -> None:
    try:
        create_table_with_add_actions(
            path(run, name),
            schema,
            added,
            mode="error",
            partition_by=[partition(run, name)],
            configuration=_PROPERTIES,
            commit_properties=properties,
            post_commithook_properties=_HOOKS,
        )
    except DeltaError as error:
        if is_table(path(run, name)):
            # Another process has made it meanwhile.
            raise CommitFailedError(str(error)) from error
        raise


def _add(column: str, file: DataFile) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values={column: file.day},
        modification_time=file.modified,
        data_change=True,
        stats=file.stats,
    )


def _schema(
    run: Run,
    name: str,
    table: DeltaTable | None,
    staging: Staging,
    days: Iterable[date],
) -> Schema:
    """The table's columns once these days of it are replaced."""
    if table is None:
        return Schema.from_json(json.dumps(staging.schema))
    return _widened(run, name, table, staging.schema, set(map(str, days)))


def _widened(
    run: Run,
    name: str,
    table: DeltaTable,
    schema: dict[str, Any],
    replaced: Collection[str],
) -> Schema:
    """The table's columns, and after them those that the staged rows have got since.

    A column has the type of the rows when all days of the table are replaced: then no file of the
    old type stays.
    """
    retyped = _retyped(table, schema)
    stay = _days(table) - set(replaced)
    if retyped and stay:
        column, (before, after) = next(iter(retyped.items()))
        raise NightshiftError(
            f"{sql_name(run, name)}: column '{column}' is {before} in the table, and {after} in "
            f"the rows to be published, and {len(stay)} of its days stay as they are. Nothing was "
            f"published. {_way_to_another_type(run, name, stay | set(replaced))}; or give the "
            "column its old type, or another name."
        )
    there = _fields(table)
    names = [field["name"] for field in there]
    added = [field for field in schema["fields"] if field["name"] not in names]
    _refuse_twins(run, name, names, added)
    for field in there:
        if field["name"] in retyped:
            field["type"] = retyped[field["name"]][1]
        # Of a table of before, too: these rows may lack what no row of it did.
        field["type"] = nullable(field["type"])
    fields = [*there, *added]
    _refuse_without_zone(run, name, table, fields)
    return Schema.from_json(json.dumps({"type": "struct", "fields": fields}))


def _way_to_another_type(run: Run, name: str, days: Iterable[str]) -> str:
    """How a table gets a column of another type: a raw one from its files, others by their code."""
    pipeline = run.pipeline
    made = next((table for table in pipeline.tables if table.name == name), None)
    if made is None or name in {feed.name for feed in pipeline.feeds}:
        return f"`nightshift migrate {pipeline.name}` tells what can be done"
    nights = sorted(made.night_of(date.fromisoformat(day)) for day in days)
    # What was served is replaced only by a person's word.
    again = " --rescore" if name == PREDICTIONS else ""
    command = (
        f"`nightshift run {pipeline.name} --restate{again} --from {nights[0]} --to {nights[-1]}`"
    )
    left_out = nights_left_out(run, name, nights)
    if not left_out:
        return f"{command} makes all of its days anew"
    # Of such a table alone nobody has learned, and nothing was served.
    is_derived = made in pipeline.derived
    place = path(run, name)
    anew = f"; or delete {place}, which the next night makes anew, without older versions"
    return (
        f"No run makes all of its days anew in one go, because night {left_out[0]} was left out "
        f"({len(left_out)} in all): land what it lacks, and {command} does"
        f"{anew if is_derived else ''}"
    )


def nights_left_out(run: Run, name: str, nights: Iterable[date]) -> list[date]:
    """The nights between others of a table that have published none of its days.

    Args:
        run: Whose pipeline's table it is.
        name: The table.
        nights: Those that are known to have a day of it. Days without rows are on record alone.
    """
    night_of = run.pipeline.table(name).night_of
    made = {*nights, *map(night_of, publications.in_force(run, name))}
    if not made:
        return []
    return [night for night in Days(min(made), max(made)) if night not in made]


def _days(table: DeltaTable) -> set[str]:
    """The days of which the table has rows, as the log writes them."""
    days: set[str] = set()
    for partition_values in table.partitions():
        days.update(partition_values.values())
    return days


def _fields(table: DeltaTable) -> list[_Field]:
    schema = json.loads(table.schema().to_json())
    fields: list[_Field] = schema["fields"]
    return fields


def _retyped(table: DeltaTable, schema: dict[str, Any]) -> dict[str, _Types]:
    """Columns of another type in the rows than in the table, with both types."""
    types = {field["name"]: field["type"] for field in _fields(table)}
    found = {}
    for field in schema["fields"]:
        before = types.get(field["name"], field["type"])
        if nullable(before) != nullable(field["type"]):
            found[field["name"]] = (before, field["type"])
    return found


def _refuse_twins(
    run: Run,
    name: str,
    there: Iterable[str],
    added: Iterable[_Field],
) -> None:
    """Refuse a column that Spark and DuckDB would take for another of the table."""
    known = {column.lower(): column for column in there}
    for field in added:
        twin = known.get(field["name"].lower())
        if twin:
            raise NightshiftError(
                f"{sql_name(run, name)}: column '{field['name']}' differs only in case from "
                f"'{twin}', which the table has. Nothing was published. Give it that name."
            )


def _refuse_without_zone(
    run: Run,
    name: str,
    table: DeltaTable,
    fields: Iterable[_Field],
) -> None:
    """Refuse moments without a zone where the table's protocol has none: nobody could open it.

    A table that begins with such a column has them.
    """
    if _FEATURE_WITHOUT_ZONE in (table.protocol().reader_features or ()):
        return
    for field in fields:
        column = field["name"]
        if _WITHOUT_ZONE in _simple_types(field["type"]):
            raise NightshiftError(
                f"{sql_name(run, name)}: column '{column}' has moments without a zone "
                f"({_WITHOUT_ZONE}), and the table began without any: with them no reader could "
                "open it any more. Nothing was published. Give "
                f"`CAST({column} AS TIMESTAMP)` in its place, or a text."
            )


def _simple_types(kind: Any) -> Iterator[str]:
    """What a type is made of, as Delta writes it."""
    if isinstance(kind, str):
        yield kind
        return
    parts = [kind[part] for part in _PARTS if part in kind]
    parts += [field["type"] for field in kind.get("fields", ())]
    for part in parts:
        yield from _simple_types(part)
