"""Runs, files and versions of a pipeline's models in MLflow.

The registered model has the pipeline's name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from pipelines.environment import Environment
from pipelines.errors import NightshiftError, no_such

# Before mlflow is imported: it reports its use over the network otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

CHAMPION, CHALLENGER = "champion", "challenger"
FILES = "model"
"""Artifact folder of what serving needs. No pickled flavour of MLflow: a reader of a pickle runs
its code."""
_LONGEST_PARAM = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """One version of a pipeline's model."""

    name: str
    version: str
    run_id: str
    """Of MLflow."""
    as_of: date
    """The night it was trained for: nothing that became known later went into it."""
    fingerprint: str
    """Of everything that determines its weights."""
    sha256: Mapping[str, str]
    """File name -> digest, checked before a file is loaded."""
    aliases: tuple[str, ...] = ()


class Registry:
    """The models of one pipeline."""

    def __init__(self, environment: Environment, name: str) -> None:
        self.name = name
        self._environment = environment
        self._client = MlflowClient(
            tracking_uri=environment.mlflow_uri, registry_uri=environment.mlflow_uri
        )

    def keep(
        self,
        files: Path,
        as_of: date,
        fingerprint: str,
        params: Mapping[str, object],
        curves: Mapping[str, list[float]],
        pins: Mapping[str, object],
    ) -> ModelVersion:
        """Store a trained model and make it the challenger.

        Args:
            files: Folder with exactly what serving needs.
            curves: Metric -> its values by epoch.
        """
        digests = {
            f"sha256.{file.name}": _digest(file.read_bytes()) for file in sorted(files.iterdir())
        }
        tags = {"as_of": str(as_of), "fingerprint": fingerprint, **digests}
        run = self._client.create_run(
            self._experiment(), run_name=f"{self.name} {as_of}", tags=tags
        )
        run_id = run.info.run_id
        with self._failing(run_id):
            self._client.log_batch(
                run_id,
                _curves(curves),
                [Param(k, str(v)[:_LONGEST_PARAM]) for k, v in params.items()],
            )
            self._client.log_dict(run_id, dict(pins), "pins.json")
            self._client.log_artifacts(run_id, str(files), FILES)
        self._client.set_terminated(run_id)
        return self.challenge(self._register(run_id, tags))

    def trained(self, fingerprint: str) -> ModelVersion | None:
        """The newest finished model with that fingerprint."""
        query = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'"
        runs = self._client.search_runs([self._experiment()], query, max_results=1)
        if not runs:
            return None
        run_id = runs[0].info.run_id
        # A training that was killed between its last two steps left a finished run without a
        # version.
        return self._first(f"name = '{self.name}' and run_id = '{run_id}'") or self._register(
            run_id, runs[0].data.tags
        )

    def candidate(self, as_of: date) -> ModelVersion | None:
        """The model that was trained last for that night."""
        challenger = self._alias(CHALLENGER)
        return (
            challenger
            if challenger and challenger.as_of == as_of
            else self._first(f"name = '{self.name}' and tag.as_of = '{as_of}'")
        )

    def champion(self) -> ModelVersion | None:
        """The model that serves; None when none has been promoted yet."""
        return self._alias(CHAMPION)

    def version(self, version: str) -> ModelVersion:
        """The version of that number.

        Raises:
            UsageError: there is none.
        """
        known = {v.version: v for v in self.versions()}
        if version not in known:
            raise no_such(f"version of model '{self.name}'", version, known)
        return known[version]

    def versions(self) -> list[ModelVersion]:
        """All versions, newest first."""
        try:
            aliases = self._client.get_registered_model(self.name).aliases
        except MlflowException:
            return []
        found = [
            _version(v)
            for v in self._client.search_model_versions(f"name = '{self.name}'", max_results=10_000)
        ]
        named = [
            replace(
                v,
                aliases=tuple(
                    alias for alias, number in aliases.items() if str(number) == v.version
                ),
            )
            for v in found
        ]
        return sorted(named, key=lambda v: -int(v.version))

    def challenge(self, model: ModelVersion) -> ModelVersion:
        """Make a version the challenger."""
        self._client.set_registered_model_alias(self.name, CHALLENGER, model.version)
        return model

    def promote(self, model: ModelVersion) -> None:
        """Make a version the champion."""
        self._client.set_registered_model_alias(self.name, CHAMPION, model.version)

    def log_quality(
        self, model: ModelVersion, metrics: Mapping[str, float], figures: Mapping[str, Figure]
    ) -> None:
        """Add what an evaluation found to the model's run."""
        now = int(time() * 1000)
        self._client.log_batch(
            model.run_id, [Metric(name, value, now, 0) for name, value in metrics.items()]
        )
        for name, figure in figures.items():
            self._client.log_figure(model.run_id, figure, f"plots/{name}.png")

    def curves(self, model: ModelVersion, *names: str) -> dict[str, list[float]]:
        """The values of metrics by epoch."""
        return {
            name: [m.value for m in self._client.get_metric_history(model.run_id, name)]
            for name in names
        }

    def fetch(self, model: ModelVersion, file: str, folder: Path) -> Path:
        """A file of the model, proven to be the one that was registered.

        Raises:
            NightshiftError: it is not; it must not be loaded.
        """
        path = Path(self._client.download_artifacts(model.run_id, f"{FILES}/{file}", str(folder)))
        expected, found = model.sha256.get(file), _digest(path.read_bytes())
        if found != expected:
            raise NightshiftError(
                f"{file} of model '{self.name}' version {model.version} "
                "was changed after it was registered, and was not loaded: "
                f"its SHA-256 is {found}, the registry says {expected}. "
                "Find out who writes to the artifact store, then train again with --retrain."
            )
        return path

    def prepare(self) -> None:
        """Create database, experiment and registered model, which takes seconds the first time."""
        self._experiment()
        self._registered()

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.name)
        if found:
            return str(found.experiment_id)
        place = (
            (self._environment.home / "mlartifacts" / self.name).as_uri()
            if _is_local(self._environment)
            else None
        )
        try:
            return str(self._client.create_experiment(self.name, artifact_location=place))
        except MlflowException:  # another process was faster
            return str(self._client.get_experiment_by_name(self.name).experiment_id)

    def _registered(self) -> None:
        if not self._client.search_registered_models(f"name = '{self.name}'"):
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def _register(self, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        self._registered()
        own = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
        return _version(
            self._client.create_model_version(
                self.name, source=f"runs:/{run_id}/{FILES}", run_id=run_id, tags=own
            )
        )

    def _first(self, query: str) -> ModelVersion | None:
        found = [_version(v) for v in self._client.search_model_versions(query, max_results=10_000)]
        return max(found, key=lambda v: int(v.version), default=None)

    def _alias(self, alias: str) -> ModelVersion | None:
        try:
            found = self._client.get_registered_model(self.name).aliases.get(alias)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return self.version(str(found)) if found else None

    @contextmanager
    def _failing(self, run_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise


def prepare(environment: Environment, name: str) -> None:
    """Create MLflow's database for a pipeline, so that its first night need not."""
    Registry(environment, name).prepare()


def _version(found: MlflowVersion) -> ModelVersion:
    tags = found.tags
    digests = {
        key.removeprefix("sha256."): value
        for key, value in tags.items()
        if key.startswith("sha256.")
    }
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        as_of=date.fromisoformat(tags["as_of"]),
        fingerprint=tags["fingerprint"],
        sha256=digests,
        aliases=tuple(found.aliases),
    )


def _curves(curves: Mapping[str, list[float]]) -> list[Metric]:
    now = int(time() * 1000)
    return [
        Metric(name, value, now, epoch)
        for name, values in curves.items()
        for epoch, value in enumerate(values, 1)
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_local(environment: Environment) -> bool:
    return environment.mlflow_uri.startswith("sqlite:")
