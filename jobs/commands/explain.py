"""The command `nightshift explain`: why predictions came out as they did.

Importing this is cheap: the work is done in the stage server where one is up, which has imported
what it takes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TextIO

from jobs.commands import in_server
from jobs.commands.in_server import in_server_or_here
from jobs.output import decimals, harmless, is_text, show, shown
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError, refuse_unless
from pipelines.places import write_whole

if TYPE_CHECKING:
    from datetime import date

    from matplotlib.figure import Figure

    from jobs.training.explanations.served import Explainer, Served
    from pipelines.spec import Pipeline

FUNCTION = "jobs.commands.explain:in_child"
"""This module's entry for the stage server; it must be among those that it allows."""
OF_ONE = ("feature", "value", "base", "attribution", "meaning")
"""Columns of the explanation of one prediction."""
OF_NIGHT = ("feature", "mean_absolute", "share", "mean", "meaning")
"""Columns of the explanation of nights."""
BEHIND = ("table", "days", "row", "file", "line", "read_for")
"""Columns of the rows behind one prediction."""
_MOST_ROWS = 4000
"""Explained of all nights together: the means of more would be the same to two digits."""
_LONGEST_NAME = 80
"""Characters of the name of a picture that can be read."""
_PLAIN = re.compile(r"[A-Za-z0-9-]+")
"""A value that a file's name tells as it is."""
_Row = tuple[object, ...]


def explain(
    environment: Environment,
    pipeline: Pipeline,
    days: Days,
    keys: Sequence[str],
    form: str,
) -> int:
    """Explain in the stage server, or without one here; returns the exit code.

    Args:
        environment: Whose lake and models they are.
        pipeline: Whose predictions.
        days: The nights that made them.
        keys: Such as `carrier=UA`: columns of one prediction; none: all of the nights.
        form: How rows are printed.

    Raises:
        UsageError: there is no such prediction, or there are several.
        Refused: models of that family are not explained.
        NightshiftError: files of the model are gone, or the score is not the one that was served.
    """
    asked = {"key": parse_key(keys), "form": form}
    return in_server_or_here(environment, pipeline, days, asked, FUNCTION, _tell_what_was_asked)


def parse_key(keys: Sequence[str]) -> dict[str, str]:
    """The values of a key by column.

    Raises:
        UsageError: one has no '=', or is no text, or a column has two values.
    """
    found: dict[str, str] = {}
    for key in keys:
        refuse_unless(is_text(key), f"--key is not UTF-8: '{harmless(key)}'")
        column, equals, value = key.partition("=")
        if not equals:
            raise UsageError(f"'{key}' is no part of a key: write it as column=value.")
        if column in found:
            raise UsageError(f"The key has two values of '{column}'.")
        found[column] = value
    return found


def in_child(argument: Mapping[str, Any]) -> int:
    """Explain what `explain` was asked for, in a child of the stage server.

    Returns:
        The exit code; what went wrong is told as the command tells it.
    """
    return in_server.in_child(argument, _tell_what_was_asked)


def _tell_what_was_asked(
    environment: Environment, pipeline: Pipeline, days: Days, asked: Mapping[str, Any]
) -> None:
    tell(environment, pipeline, days, asked["key"], asked["form"])


def tell(
    environment: Environment,
    pipeline: Pipeline,
    days: Days,
    key: Mapping[str, str],
    form: str,
) -> None:
    """Print one prediction's explanation, or that of all predictions of the nights; see `explain`.

    As a table all of it goes to stdout; as csv and json the attributions do, and the rest to
    stderr.
    """
    from jobs.training.explanations.served import Explainer

    pipeline.require_days(days)
    explainer = Explainer.of(environment, pipeline)
    if not key:
        _tell_nights(explainer, days, form)
        return
    if len(days) != 1:
        raise UsageError("A key names one prediction of one night: give it with --date D.")
    _tell_one(explainer, days.first, key, form)


def _tell_one(
    explainer: Explainer,
    night: date,
    key: Mapping[str, str],
    form: str,
) -> None:
    from jobs.lake.behind import behind
    from jobs.training import plots
    from jobs.training.explanations import served

    pipeline = explainer.pipeline
    predictions = served.published(explainer.environment, pipeline, night)
    one = served.one_of(pipeline, predictions, key)
    (explained,) = explainer.explain(night, one)
    out = _words(form)
    for line in _about_one(explainer, explained):
        print(harmless(line), file=out)
    rows = list(_rows_of_one(pipeline, explained))
    show(OF_ONE, rows, form)
    print(_reconciled(explainer, explained), file=out)
    entity = {name: one[name][0].as_py() for name in pipeline.entity}
    if form == "table":
        print("\nThe rows behind it:")
        found = behind(explained.run(pipeline, explainer.environment), entity)
        show(BEHIND, [astuple(row) for row in found], form)
        print(_LEFT_OUT.format(pipeline=pipeline.name))
    else:
        print("The rows behind it are shown by --format table.", file=sys.stderr)
    named: dict[str, float] = {}
    for name, value, _, attribution, _ in rows:
        named[f"{name} {_short(value)}"] = float(str(attribution))
    score = one[pipeline.prediction][0].as_py()
    title = harmless(f"{_title(entity)}: {pipeline.prediction} {_short(score)}")
    figure = plots.attributions(title, _unit(explained), named)
    _save(explainer, Days.of(night), _file_name(entity.values()), figure)


_LEFT_OUT = (
    "Left out: single rows of windows over many days. Each file with its digest is told by "
    "ops.publications, whose table_name begins with '{pipeline}.'."
)


def _about_one(explainer: Explainer, one: Served) -> Iterator[str]:
    from jobs.training.explanations import served

    pipeline = explainer.pipeline
    row = one.predictions.to_pylist()[0]
    entity = {name: row[name] for name in pipeline.entity}
    revision = served.revision(explainer.environment, pipeline, one.night)
    score = shown(row[pipeline.prediction])
    yield f"{_title(entity)}: {pipeline.prediction} {score}"
    yield (
        f"Published by run {row['run_id']} at {row['predicted_at']:%Y-%m-%d %H:%M} UTC, "
        f"revision {revision} of {revision}, code {row['code_version']}."
    )
    yield (
        f"Scored by version {one.model.version} ({one.model.family}, trained as of "
        f"{one.model.as_of}, MLflow run {one.model.run_id}) from {pipeline.name}.scoring "
        f"version {row['scoring_version']}."
    )
    yield _about_base(explainer, one)


def _about_base(explainer: Explainer, one: Served) -> str:
    unit = _unit(one)
    base = one.attribution.base
    says = one.task.inverse_link(_vector(base))[0]
    return (
        f"Attributions are in {unit}, from a base of which nothing is known (numbers at the mean "
        f"of the rows trained on, categories unknown): {shown(base)}, which is "
        f"{explainer.pipeline.prediction} {shown(says)}."
    )


def _rows_of_one(pipeline: Pipeline, one: Served) -> Iterator[_Row]:
    """A row for each feature, the largest attribution first."""
    from jobs.training.explanations.attribution import base_values

    values = one.rows.to_pylist()[0]
    bases = base_values(one.scorer.encoding)
    meanings = _meanings(pipeline)
    attributions = _by_feature(one, 0)
    for name in sorted(attributions, key=lambda feature: -abs(attributions[feature])):
        meaning = meanings.get(name, "")
        yield (name, values[name], bases[name], attributions[name], meaning)


def _by_feature(one: Served, row: int) -> dict[str, float]:
    columns = one.scorer.encoding.columns
    values = one.attribution.of_features[row].tolist()
    return dict(zip(columns, values, strict=True))


_digits = partial(decimals, digits=6)


def _reconciled(explainer: Explainer, one: Served) -> str:
    """That all of it adds up to what was served, with the differences."""
    attribution = one.attribution
    total = float(attribution.totals[0])
    added = float(attribution.of_features[0].sum())
    own = float(attribution.linear[0])
    name = explainer.pipeline.prediction
    says = float(one.task.inverse_link(attribution.totals)[0])
    published = one.predictions[name][0].as_py()
    return (
        f"Adds up: base {_digits(attribution.base)} + attributions {_digits(added)} = "
        f"{_digits(total)} in {_unit(one)}; the model's own {_digits(own)} "
        f"(difference {abs(total - own):.1e}). "
        f"As {name} {_digits(says)}; published {_digits(published)} "
        f"(difference {abs(says - published):.1e})."
    )


def _tell_nights(explainer: Explainer, days: Days, form: str) -> None:
    from jobs.training import plots
    from jobs.training.explanations import served

    pipeline = explainer.pipeline
    nights = served.nights_with_predictions(explainer.environment, pipeline, days)
    share = max(1, _MOST_ROWS // len(nights))
    explained: list[Served] = []
    all_rows = 0
    for night in nights:
        predictions = served.published(explainer.environment, pipeline, night)
        all_rows += len(predictions)
        explained += explainer.explain(night, served.some_of(predictions, share))
    taken = sum(len(one.predictions) for one in explained)
    models = dict.fromkeys(f"{one.model.version} ({one.model.family})" for one in explained)
    # Of several, where the pipeline has foretold several things.
    unit = " or ".join(dict.fromkeys(map(_unit, explained)))
    told = f"{taken} predictions" if taken == all_rows else f"{taken} of {all_rows} predictions"
    print(
        f"{pipeline.name} {days}: {told}, by version {', '.join(models)}. Attributions are in "
        f"{unit}, from a base of mean numbers and unknown categories; each row's add up to its "
        "prediction.",
        file=_words(form),
    )
    rows = _rows_of_nights(pipeline, explained, taken)
    show(OF_NIGHT, rows, form)
    means: dict[str, float] = {}
    for name, mean_absolute, *_ in rows:
        means[str(name)] = float(str(mean_absolute))
    figure = plots.weights(f"{pipeline.name} {days}: {told}", unit, means)
    _save(explainer, days, "night", figure)


def _rows_of_nights(pipeline: Pipeline, explained: Sequence[Served], taken: int) -> list[_Row]:
    """A row for each feature, the one that weighs most first."""
    import numpy as np

    sizes: dict[str, float] = {}
    sums: dict[str, float] = {}
    for one in explained:
        parts = one.attribution.of_features
        named = zip(
            one.scorer.encoding.columns,
            np.abs(parts).sum(axis=0).tolist(),
            parts.sum(axis=0).tolist(),
            strict=True,
        )
        for name, size, total in named:
            sizes[name] = sizes.get(name, 0.0) + size
            sums[name] = sums.get(name, 0.0) + total
    # A model of a constant has nothing to share out.
    of_all = sum(sizes.values()) or 1.0
    meanings = _meanings(pipeline)
    rows: list[_Row] = []
    for name, size in sorted(sizes.items(), key=itemgetter(1), reverse=True):
        meaning = meanings.get(name, "")
        rows.append((name, size / taken, size / of_all, sums[name] / taken, meaning))
    return rows


def _meanings(pipeline: Pipeline) -> dict[str, str]:
    """What each feature is, as it was declared."""
    from jobs.lake.dictionary import feed_docs

    raw = feed_docs(pipeline)
    found = dict(raw)
    for view in pipeline.views:
        for feature in view.features:
            # What a feature takes over from a column of a feed is told there, with its unit.
            taken_over = raw.get(feature.column or feature.made_by or feature.name, "")
            told = (feature.doc or ("" if feature.finish else taken_over), view.doc)
            found[feature.name] = " ".join(text for text in told if text)
    return found


def _unit(one: Served) -> str:
    from jobs.training.explanations import unit_of

    return unit_of(one.task, one.label)


def _vector(value: float) -> Any:
    import numpy as np

    return np.array([value])


def _words(form: str) -> TextIO:
    """Where everything goes that is not the rows which were asked for."""
    return sys.stdout if form == "table" else sys.stderr


def _title(entity: Mapping[str, object]) -> str:
    return " ".join(str(value) for value in entity.values())


def _file_name(values: Iterable[object]) -> str:
    parts = list(map(str, values))
    # What rows hold is text: it must not lead out of the folder.
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", "_".join(parts))[:_LONGEST_NAME]
    if all(_PLAIN.fullmatch(part) for part in parts) and len(readable) < _LONGEST_NAME:
        return readable
    # Other keys read alike.
    digest = hashlib.sha256(json.dumps(parts).encode())
    return f"{readable}-{digest.hexdigest()[:8]}"


def _short(value: object) -> str:
    """A value as a picture shows it."""
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else harmless(str(value))


def _save(
    explainer: Explainer,
    days: Days,
    name: str,
    figure: Figure,
) -> None:
    """Write a picture beside the reports of the nights, and say where it is."""
    folder = explainer.environment.reports / explainer.pipeline.name
    file = folder / f"{days.first}..{days.last}" / "explanations" / f"{name}.png"
    from jobs.training.page_parts import png_of

    write_whole(file, png_of(figure))
    print(f"Picture: {file}", file=sys.stderr)
