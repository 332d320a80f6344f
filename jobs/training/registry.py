"""Runs, files and versions of a pipeline's models in MLflow.

The registered model has the pipeline's name. A version of it that this platform did not make is no
model of the pipeline.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from time import time, time_ns
from typing import TYPE_CHECKING, Any

from jobs.lake import model_events
from jobs.lake.snapshots import Snapshot
from jobs.lake.store_faults import explain_away
from jobs.services import locks
from jobs.services.home import private_home
from jobs.services.shared_locks import hold, hold_at
from jobs.training import moved
from jobs.training.pins import snapshot_of
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError, no_such
from pipelines.model import NeuralNetwork
from pipelines.places import is_url
from pipelines.spec import TRAINING

# Before mlflow is imported: it reports its use over the network otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A server that is away is asked for a minute, not for the four that MLflow has by default.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
# Of a database that says nothing MLflow asks ten times, by default for 130 s each.
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")

from mlflow.entities import LifecycleStage, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

CHAMPION, CHALLENGER = "champion", "challenger"
NOWHERE = "nowhere"
"""Instead of a version: the alias points to none."""
FILES = "model"
"""Artifact folder of what serving and judging need. No pickled flavour of MLflow: a reader of a
pickle runs its code."""
_PINS = "pins.json"
"""Artifact that tells what to look up to train the model again."""
_PIECE_BYTES = 1 << 20
_TIMELINES = "timelines"
_PLOTS = "plots"
_CARD = "card"
"""Artifact folders of an evaluation's pictures, and of the card."""
_DIGEST = "sha256."
"""Prefix of the tags that hold the digest of each file."""
_SET_TO = "nightshift.champion"
"""Tag of the registered model: where its alias is unless somebody has moved it by hand. Several, by
spaces, while it is set."""
_FAMILY = "family"
_RECIPE = "recipe"
_CHALLENGED = "challenged_at"
"""Tag of a version: when it was made the challenger last, in nanoseconds. It was not told of those
of before, of which the one with the highest number counts."""
_FIRST_FAMILY = NeuralNetwork.name
"""Of a model without the tag: it was trained when there was no other."""
_LOSSES = ("loss", "val_loss")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
"""As MLflow makes it."""
_SQLITE = "sqlite:///"
_TABLES = "tables of MLflow"
"""The lock of whoever may make them: two at once end each other."""
_LONGEST_PARAM = 500
"""Characters; older servers of MLflow refuse a longer value."""
_MOST = 10_000
"""What MLflow gives at most in one answer."""
_MOST_DIGITS = 9
"""Of a version's number."""
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's answers where there is no such model or version, and no such alias or number."""


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
    family: str
    """How it learned, and so how it is loaded: `jobs/training/families`."""
    recipe: str
    """Of everything that determines its weights besides the rows; empty: it was kept before this
    was told."""
    sha256: Mapping[str, str]
    """File, below the folder of all -> digest, checked before it is loaded."""
    aliases: tuple[str, ...] = ()


class Registry:
    """The models of one pipeline."""

    def __init__(self, environment: Environment, name: str) -> None:
        self.name = name
        self._environment = environment
        # MLflow makes the folder of its database, and so perhaps the home.
        private_home(environment)
        if environment.mlflow_uri.startswith(_SQLITE) and not is_url(environment.models):
            moved.follow(_database(environment), name, environment.models / name)
        self._client = client_of(environment)
        self._stores: dict[str, ArtifactRepository] = {}
        """That of the run whose files were asked for last."""

    def keep(
        self,
        files: Path,
        *,
        as_of: date,
        fingerprint: str,
        family: str,
        recipe: str,
        params: Mapping[str, object],
        curves: Mapping[str, list[float]],
        pins: Mapping[str, object],
        timelines: Mapping[str, Path] | None = None,
    ) -> ModelVersion:
        """Store a trained model and make it the challenger.

        Args:
            files: Folder with exactly what serving and judging need.
            curves: Metric -> its values by epoch.
            timelines: Of the model of that name: what the processes of its training did when.

        Raises:
            Refused: a value of the curves is no finite number. Nothing is stored: the next training
                from the same pins would take it for done.
        """
        _require_finite(self.name, as_of, curves)
        tags = {
            "as_of": str(as_of),
            "fingerprint": fingerprint,
            _FAMILY: family,
            _RECIPE: recipe,
        }
        for file in sorted(files.rglob("*")):
            if file.is_file():
                name = file.relative_to(files).as_posix()
                tags[_DIGEST + name] = _digest(file.read_bytes())
        run = self._client.create_run(
            self._experiment(), run_name=f"{self.name} {as_of}", tags=tags
        )
        run_id = run.info.run_id
        with self._failing(run_id):
            self._client.log_batch(run_id, _curves(curves), _params(params))
            self._client.log_dict(run_id, dict(pins), _PINS)
            self._client.log_artifacts(run_id, str(files), FILES)
            for name, timeline in (timelines or {}).items():
                self._client.log_artifact(run_id, str(timeline), f"{_TIMELINES}/{name}")
        self._client.set_terminated(run_id)
        return self.challenge(self._register(run_id, tags))

    def trained(self, fingerprint: str) -> ModelVersion | None:
        """The newest finished model with that fingerprint, unless its loss is no finite number."""
        query = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'"
        # MLflow gives the newest first.
        runs = self._client.search_runs([self._experiment()], query, max_results=1)
        # One without finite losses was kept by the code of before, which did not refuse it.
        if not runs or not _has_finite_losses(runs[0].data.metrics):
            return None
        run_id = runs[0].info.run_id
        registered = self._first(f"name = '{self.name}' and run_id = '{run_id}'")
        # A training that was killed between its last two steps left a finished run without a
        # version.
        return registered or self._register(run_id, runs[0].data.tags)

    def candidate(self, as_of: date) -> ModelVersion | None:
        """The model that was trained last for that night."""
        answer = self._alias(CHALLENGER)
        challenger = _version(answer) if answer and _is_ours(answer) else None
        if challenger and challenger.as_of == as_of:
            return challenger
        answers = self._search(f"name = '{self.name}' and tag.as_of = '{as_of}'")
        last = max(filter(_is_ours, answers), key=_challenged, default=None)
        return _version(last) if last else None

    def champion(self) -> str | None:
        """The version to which the alias points, whoever made it; None: to none."""
        answer = self._alias(CHAMPION)
        return str(answer.version) if answer else None

    def version(self, version: str) -> ModelVersion:
        """The version of that number.

        Raises:
            UsageError: there is none.
        """
        if found := self._found(version):
            return found
        known = [model.version for model in self.versions()]
        raise no_such(f"version of model '{self.name}'", version, known)

    def there(self, versions: Iterable[str]) -> set[str]:
        """Those of the versions that there are; to list all takes longer each night."""
        return {version for version in versions if self._found(version)}

    def in_service(self, version: str) -> ModelVersion:
        """The version of that number, which serves.

        Raises:
            NightshiftError: it was deleted in MLflow.
        """
        try:
            return self.version(version)
        except UsageError as error:
            raise NightshiftError(
                f"Version {version} of model '{self.name}' serves and is not in MLflow. "
                f"Restore it there, or {self._another_may_serve}"
            ) from error

    def versions(self) -> list[ModelVersion]:
        """All versions, newest first."""
        try:
            aliases = self._client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                return []
            # Whoever took it for empty would say that what serves was deleted.
            raise
        by_version: dict[str, list[str]] = {}
        for alias, number in aliases.items():
            by_version.setdefault(str(number), []).append(alias)
        versions = [
            replace(model, aliases=tuple(by_version.get(model.version, ())))
            for model in self._models(self._mine)
        ]
        return sorted(versions, key=lambda model: -int(model.version))

    def of_others(self) -> list[str]:
        """Numbers of the versions that are no models of ours, newest first."""
        answers = self._search(self._mine)
        numbers = [int(answer.version) for answer in answers if not _is_ours(answer)]
        return [str(number) for number in sorted(numbers, reverse=True)]

    def challenge(self, model: ModelVersion) -> ModelVersion:
        """Make a version the challenger."""
        # The alias forgets it once another night trains.
        now = str(time_ns())
        self._client.set_model_version_tag(self.name, model.version, _CHALLENGED, now)
        self._client.set_registered_model_alias(self.name, CHALLENGER, model.version)
        return model

    def set_champion(self, version: str) -> None:
        """Have the alias point to a version, and remember that this platform did."""
        self._about_to_leave_at(version)
        self._client.set_registered_model_alias(self.name, CHAMPION, version)
        self._client.set_registered_model_tag(self.name, _SET_TO, version)

    def remove_champion(self) -> None:
        """Have the alias point nowhere."""
        self._about_to_leave_at(NOWHERE)
        self._client.delete_registered_model_alias(self.name, CHAMPION)
        self._client.delete_registered_model_tag(self.name, _SET_TO)

    def champion_left_at(self) -> list[str]:
        """The version at which this platform has left the alias; NOWHERE: at none, or long ago.

        Several where it was killed while it set the alias, the last of which was to have it.
        """
        try:
            model = self._client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                # It, or MLflow's database, was deleted.
                return [NOWHERE]
            raise
        tag: str = model.tags.get(_SET_TO, NOWHERE)
        return tag.split()

    def log_evaluation(
        self, model: ModelVersion, metrics: Mapping[str, float], figures: Mapping[str, Figure]
    ) -> None:
        """Add what an evaluation showed to the model's run.

        Raises:
            NightshiftError: it was deleted, so that MLflow adds nothing to it.
        """
        if self._client.get_run(model.run_id).info.lifecycle_stage == LifecycleStage.DELETED:
            restore = _by_hand(self._client, f"runs restore --run-id {model.run_id}")
            raise NightshiftError(
                f"The run of model '{self.name}' version {model.version} was deleted in MLflow, so "
                f"that nothing can be added to it. Restore it: {restore}. Or train another: "
                f"nightshift run {self.name} --date {model.as_of} --retrain"
            )
        now = int(time() * 1000)  # MLflow counts milliseconds
        values = [Metric(name, value, now, 0) for name, value in metrics.items()]
        self._client.log_batch(model.run_id, values)
        for name, figure in figures.items():
            self._client.log_figure(model.run_id, figure, f"{_PLOTS}/{name}.png")

    def pictures(self, model: ModelVersion, names: Iterable[str]) -> dict[str, bytes]:
        """Of these pictures of an evaluation those that there are, as PNG."""
        kept = self._client.list_artifacts(model.run_id, _PLOTS)
        paths = {Path(one.path).stem: one.path for one in kept}
        found: dict[str, bytes] = {}
        with TemporaryDirectory() as folder:
            for name in names:
                if name in paths:
                    found[name] = self._download(model, paths[name], folder).read_bytes()
        return found

    def log_card(self, model: ModelVersion, files: Mapping[str, bytes]) -> None:
        """Put the files of its card beside the model."""
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            self._client.log_artifacts(model.run_id, folder, _CARD)

    def params(self, model: ModelVersion) -> dict[str, str]:
        """What the model's run tells of its settings, as texts.

        Raises:
            NightshiftError: it was deleted.
        """
        try:
            return dict(self._client.get_run(model.run_id).data.params)
        except MlflowException as error:
            if error.error_code not in _UNKNOWN:
                raise
            raise NightshiftError(
                f"The run of model '{self.name}' version {model.version} is not in MLflow, so "
                "nobody knows what it has learned. Restore it there, or delete that version."
            ) from error

    def curves(self, model: ModelVersion, *names: str) -> dict[str, list[float]]:
        """The values of metrics by epoch."""
        curves: dict[str, list[float]] = {}
        for name in names:
            history = self._client.get_metric_history(model.run_id, name)
            curves[name] = [metric.value for metric in history]
        return curves

    def fetch(self, model: ModelVersion, files: Iterable[str], folder: Path) -> None:
        """Copy files of the model into the folder, each proven to be the one registered.

        Raises:
            NightshiftError: one is not, and must not be loaded; or it is gone.
        """
        for file in files:
            self._fetch(model, file, folder)

    def pinned(self) -> set[Snapshot]:
        """What registered models were made from, each of which can be trained again from it.

        Raises:
            NightshiftError: what a model pins cannot be read.
        """
        return {self._pinned(model) for model in self._models(self._mine)}

    def pins(self, model: ModelVersion) -> dict[str, Any]:
        """What the model was trained from, as `jobs.training.pins` told it then.

        Raises:
            NightshiftError: it cannot be read.
        """
        with TemporaryDirectory() as folder:
            try:
                return dict(json.loads(self._download(model, _PINS, folder).read_bytes()))
            except (MlflowException, OSError, ValueError, TypeError) as error:
                self._raise_if_away(error)
                raise self._unreadable(model, error) from error

    def without_model(self, before: datetime) -> list[str]:
        """Ids of trainings that began before and have no registered model: failed, or killed."""
        milliseconds = int(before.timestamp() * 1000)
        began_before = self._experiment_runs(f"attributes.start_time < {milliseconds}")
        registered = self.runs()
        ours = [run.info.run_id for run in began_before if _is_training(run)]
        return [run_id for run_id in ours if run_id not in registered]

    def others(self) -> set[str]:
        """Ids of the runs that others keep beside our trainings."""
        return {run.info.run_id for run in self._experiment_runs("") if not _is_training(run)}

    def is_of_others(self, run_id: str) -> bool:
        """Whether others keep that run, of whatever experiment, also where it can be restored.

        One that is unknown here may be another home's, where its files lie outside this one.
        """
        try:
            return not _is_training(self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                return not _lie_in_home(self._environment)
            raise

    def runs(self) -> set[str]:
        """Ids of the runs of all registered versions, whoever made them."""
        return {answer.run_id for answer in self._search(self._mine)}

    def forget(self, run_ids: Iterable[str]) -> None:
        """Delete runs; MLflow can restore them until its own garbage collection."""
        for run_id in run_ids:
            self._client.delete_run(run_id)

    def create(self) -> None:
        """Create database, experiment and registered model, which takes seconds the first time.

        Raises:
            NightshiftError: the experiment was deleted, so that no run can be kept.
        """
        self._experiment()
        self._registered()

    @property
    def _mine(self) -> str:
        return f"name = '{self.name}'"

    @property
    def _another_may_serve(self) -> str:
        return (
            f"have another one serve: nightshift rollback {self.name} --why TEXT. Where none "
            "served before, the next candidate that is fit takes its place (stages train and "
            "evaluate)."
        )

    def _about_to_leave_at(self, version: str) -> None:
        # Killed in between, it is at one of these, and nobody has moved it.
        others = [place for place in self.champion_left_at() if place != version]
        self._client.set_registered_model_tag(self.name, _SET_TO, " ".join([*others, version]))

    def _pinned(self, model: ModelVersion) -> Snapshot:
        """What a model was made from."""
        pins = self.pins(model)
        try:
            return snapshot_of(pins)
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable(model, error) from error

    def _unreadable(self, model: ModelVersion, error: Exception) -> NightshiftError:
        return NightshiftError(
            f"{_PINS} of model '{self.name}' version {model.version} cannot be read "
            f"({_last_line(error)}), so nobody knows which rows it was made from. Restore it in "
            "the artifact store, or delete that version in MLflow."
        )

    def _fetch(self, model: ModelVersion, file: str, folder: Path) -> None:
        # Some artifact stores keep the path below the folder, some only the name, which the file of
        # another model in the same folder may have too.
        with TemporaryDirectory(dir=folder) as own:
            path = self._downloaded(model, file, own)
            expected = model.sha256.get(file)
            actual = _digest(path.read_bytes())
            if actual != expected:
                raise NightshiftError(
                    f"{file} of model '{self.name}' version {model.version} "
                    "was changed after it was registered, and was not loaded: "
                    f"its SHA-256 is {actual}, the registry says {expected}. "
                    "Find out who writes to the artifact store, then train again with --retrain."
                )
            place = folder / file
            place.parent.mkdir(exist_ok=True)
            path.replace(place)

    def _downloaded(self, model: ModelVersion, file: str, folder: str) -> Path:
        try:
            return self._download(model, f"{FILES}/{file}", folder)
        except (MlflowException, OSError) as error:
            self._raise_if_away(error)
            raise NightshiftError(
                f"{file} of model '{self.name}' version {model.version} cannot be read "
                f"({_last_line(error)}). Restore it in the artifact store. If it is tonight's "
                "candidate, train again with --retrain; if another serves by now, leave out the "
                f"nights of its turn; if it serves, {self._another_may_serve}"
            ) from error

    def _download(self, model: ModelVersion, path: str, folder: str) -> Path:
        """A file of the model's run, in the folder.

        Raises:
            MlflowException, OSError: it is not there, or cannot be read.
            Exception: what says that the store is away, which tells nothing of the file.
        """
        try:
            return Path(self._store_of(model).download_artifacts(path, folder))
        except (MlflowException, OSError):
            # MLflow says the same of a file that is gone and of a store that is away. Of a list of
            # files it says what is wrong.
            below = path.rpartition("/")[0] or None
            there = self._client.list_artifacts(model.run_id, below)
            sizes = {one.path: one.file_size for one in there}
            if path not in sizes:
                raise
            # Of a disk that is full it says the same, too.
            _require_room(Path(folder), sizes[path] or 0)
        # It answers by now.
        return Path(self._store_of(model).download_artifacts(path, folder))

    def _raise_if_away(self, error: Exception) -> None:
        """Raise an error again that says nothing of a file: MLflow, its store or a disk is away."""
        if explain_away(error, self._environment.variables()):
            raise error

    def _store_of(self, model: ModelVersion) -> ArtifactRepository:
        """Where the files of its run lie.

        Looked up once: MLflow's client does so for each file, which takes longer than to copy it.
        Of one run, because each store holds threads.
        """
        if model.run_id not in self._stores:
            uri = self._environment.mlflow_uri
            place = self._client.get_run(model.run_id).info.artifact_uri
            # As MLflow's client does: its stores at Databricks know no other address of the server.
            place = add_databricks_profile_info_to_artifact_uri(place, uri)
            self._stores = {model.run_id: get_artifact_repository(place, tracking_uri=uri)}
        return self._stores[model.run_id]

    def _experiment(self) -> str:
        # A server decides itself where artifacts lie.
        folder = self._environment.models / self.name
        location = folder.as_uri() if self._environment.keeps_models else None
        return experiment_of(self._client, self.name, location)

    def _registered(self) -> None:
        if not self._client.search_registered_models(f"name = '{self.name}'"):
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                # Another process was faster.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def _register(self, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        self._registered()
        # Tags that begin so are MLflow's own, about the run.
        own = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
        made = self._numbered(run_id, own)
        told = model_events.highest_version(self._environment, self.name)
        if int(made.version) > told:
            return _version(made)
        # MLflow begins at 1 again where the registered model or its database was deleted. What the
        # record says of that number is about another model, which this one must not pass for.
        number = int(made.version)
        self._client.delete_model_version(self.name, made.version)
        while number < told:
            # Without tags: whoever is killed here leaves no model of ours.
            skipped = self._numbered(run_id, {})
            self._client.delete_model_version(self.name, skipped.version)
            number = int(skipped.version)
        return _version(self._numbered(run_id, own))

    def _numbered(self, run_id: str, tags: Mapping[str, str]) -> MlflowVersion:
        """A new version of the run's model, with the next number."""
        source = f"runs:/{run_id}/{FILES}"
        return self._client.create_model_version(self.name, source=source, run_id=run_id, tags=tags)

    def _first(self, query: str) -> ModelVersion | None:
        # As numbers: as texts '9' would come after '10'.
        return max(self._models(query), key=_number, default=None)

    def _models(self, query: str) -> list[ModelVersion]:
        return [_version(answer) for answer in self._search(query) if _is_ours(answer)]

    def _experiment_runs(self, query: str) -> list[MlflowRun]:
        """The runs of the pipeline's experiment, without deleted ones."""
        experiment = self._client.get_experiment_by_name(self.name)
        if not experiment:
            return []
        found: list[MlflowRun] = []
        token = None
        while True:
            page = self._client.search_runs(
                [experiment.experiment_id], query, max_results=_MOST, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    def _found(self, version: str) -> ModelVersion | None:
        # Of a longer one MLflow's database says that it is too large, as a fault of its own.
        if not version.isdecimal() or len(version) > _MOST_DIGITS:
            return None
        try:
            answer = self._client.get_model_version(self.name, version)
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                return None
            raise
        return _version(answer) if _is_ours(answer) else None

    def _search(self, query: str) -> list[MlflowVersion]:
        answers: list[MlflowVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(query, _MOST, page_token=token)
            answers += page
            token = page.token
            if not token:
                return answers

    def _alias(self, alias: str) -> MlflowVersion | None:
        try:
            return self._client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in _UNKNOWN:
                return None
            raise

    @contextmanager
    def _failing(self, run_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # An interrupt too: the run would look for ever as if it went on.
            self._client.set_terminated(run_id, "FAILED")
            raise


def create(environment: Environment, name: str) -> None:
    """Create MLflow's database for a pipeline, so that its first night need not."""
    with hold_at(environment, "mlflow_uri", _TABLES):
        registry = Registry(environment, name)
        # That an experiment was deleted is told by whoever trains: all else works without it.
        with suppress(NightshiftError):
            registry.create()


def _last_line(error: Exception) -> str:
    """Of MLflow's list of files that could not be had why the last one could not."""
    return (str(error).splitlines() or [""])[-1]


def client_of(environment: Environment) -> MlflowClient:
    """A client of the home's MLflow; where that is a file, its database is there afterwards."""
    connect = partial(MlflowClient, environment.mlflow_uri, environment.mlflow_uri)
    if not environment.mlflow_uri.startswith(_SQLITE):
        return connect()
    with locks.hold(environment, _TABLES):
        return connect()


def making_tables(environment: Environment) -> AbstractContextManager[None]:
    """Have all who share MLflow's database make its tables one after another.

    MLflow itself takes a lock for those of models alone, which is a file of one machine.
    """
    return hold(environment, _TABLES)


def is_there(environment: Environment) -> bool:
    """Whether there may be models: of a server nobody knows without asking."""
    is_in_file = environment.mlflow_uri.startswith(_SQLITE)
    return not is_in_file or _database(environment).exists()


def experiment_of(client: MlflowClient, name: str, location: str | None = None) -> str:
    """The id of the experiment of that name, which is made where it is not there.

    Args:
        client: Of the MLflow that has it.
        name: The experiment's.
        location: Where its artifacts are to lie; None: MLflow decides.

    Raises:
        NightshiftError: it was deleted, so that no run can be kept in it.
    """
    known = client.get_experiment_by_name(name)
    if known:
        experiment = str(known.experiment_id)
        # MLflow deletes nothing at once, and gives the name to no other.
        if known.lifecycle_stage == LifecycleStage.DELETED:
            restore = _by_hand(client, f"experiments restore -x {experiment}")
            raise NightshiftError(
                f"Experiment '{name}' was deleted in MLflow, so that nothing can be kept in it. "
                f"Restore it, which brings its runs back too: {restore}"
            )
        return experiment
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another process was faster
        return str(client.get_experiment_by_name(name).experiment_id)


def _by_hand(client: MlflowClient, command: str) -> str:
    """A command of MLflow's own, as a person says it here."""
    address = client.tracking_uri
    # Another is in the variable already, and may hold a password.
    where = f"MLFLOW_TRACKING_URI={quote(address)} " if address.startswith(_SQLITE) else ""
    return f"{where}mlflow {command}"


def artifact_folders(environment: Environment, name: str) -> list[Path]:
    """The folders of the pipeline's runs, each named as its run; none where others keep them.

    A store may hold those of several homes: of a home with a registry of its own nobody else knows
    which runs it has.
    """
    if not environment.keeps_models:
        return []
    if is_url(environment.models) and environment.mlflow_uri.startswith(_SQLITE):
        return []
    folders = (environment.models / name).glob("*")
    return [folder for folder in folders if _RUN_ID.fullmatch(folder.name)]


def _lie_in_home(environment: Environment) -> bool:
    """Whether files of models lie in the home itself, and by no link elsewhere."""
    if is_url(environment.models):
        return False
    return environment.models.resolve().is_relative_to(environment.home.resolve())


def _is_training(run: MlflowRun) -> bool:
    """Whether it is a training of this platform."""
    return "fingerprint" in run.data.tags


def _is_ours(answer: MlflowVersion) -> bool:
    """Whether this platform made it: others may register versions beside ours."""
    return {"as_of", "fingerprint"} <= set(answer.tags)


def _version(answer: MlflowVersion) -> ModelVersion:
    tags = answer.tags
    digests = {
        key.removeprefix(_DIGEST): value for key, value in tags.items() if key.startswith(_DIGEST)
    }
    return ModelVersion(
        name=answer.name,
        version=str(answer.version),
        run_id=answer.run_id,
        as_of=date.fromisoformat(tags["as_of"]),
        fingerprint=tags["fingerprint"],
        family=tags.get(_FAMILY, _FIRST_FAMILY),
        recipe=tags.get(_RECIPE, ""),
        sha256=digests,
        aliases=tuple(answer.aliases),
    )


def _number(model: ModelVersion) -> int:
    return int(model.version)


def _challenged(answer: MlflowVersion) -> tuple[int, int]:
    """By which the one is found that was made the challenger last; see `_CHALLENGED`."""
    return int(answer.tags.get(_CHALLENGED, 0)), int(answer.version)


def _require_finite(
    name: str,
    as_of: date,
    curves: Mapping[str, list[float]],
) -> None:
    odd = []
    for curve, values in curves.items():
        if not all(map(math.isfinite, values)):
            odd.append(curve)
    if odd:
        raise Refused(
            f"The model of '{name}' that was trained as of {as_of} is not kept: its "
            f"{' and '.join(odd)} went to infinity or to no number at all. The same rows and "
            "settings would give it again: lower the learning rate, or look for values that are "
            f"out of all proportion in {name}.{TRAINING}."
        )


def _has_finite_losses(metrics: Mapping[str, float]) -> bool:
    return all(math.isfinite(metrics.get(name, 0.0)) for name in _LOSSES)


def _curves(curves: Mapping[str, list[float]]) -> list[Metric]:
    # MLflow counts milliseconds.
    now = int(time() * 1000)
    metrics = []
    for name, values in curves.items():
        for epoch, value in enumerate(values, 1):
            metrics.append(Metric(name, value, now, epoch))
    return metrics


def _params(params: Mapping[str, object]) -> list[Param]:
    texts = {name: str(value) for name, value in params.items()}
    return [Param(name, text[:_LONGEST_PARAM]) for name, text in texts.items()]


def _require_room(folder: Path, size: int) -> None:
    """Prove that the folder takes a file of so many bytes.

    Raises:
        OSError: it does not.
    """
    proof = folder / "room"
    try:
        with proof.open("wb") as file:
            for _ in range(size // _PIECE_BYTES + 1):
                file.write(bytes(_PIECE_BYTES))
    finally:
        proof.unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _database(environment: Environment) -> Path:
    return Path(environment.mlflow_uri.removeprefix(_SQLITE))
