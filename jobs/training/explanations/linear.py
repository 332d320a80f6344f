"""Attributions of a linear model: each is a coefficient times a distance from the base."""

from __future__ import annotations

from jobs.training.encoding import Encoding, Examples
from jobs.training.explanations.attribution import (
    Attribution,
    base_row,
    owners_of_numbers,
    owners_of_one_hot,
    summed,
)
from jobs.training.families.linear import Linear, design
from jobs.training.tasks import LearningTask


def attribute(model: Linear, encoding: Encoding, _: LearningTask, rows: Examples) -> Attribution:
    """Of each row."""
    base = design(base_row(encoding), encoding)
    there = design(rows, encoding)
    owners = owners_of_numbers(encoding) + owners_of_one_hot(encoding)
    return Attribution(
        base=float(model.intercept + (base * model.coefficients).sum()),
        of_features=summed((there - base) * model.coefficients, owners, encoding),
        linear=model.intercept + (there * model.coefficients).sum(axis=1),
    )
