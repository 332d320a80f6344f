"""What OpenLineage is told of a task: the tables that it read, and those that it changed.

The names are those of OpenLineage's own rules for files, by which Spark tells of the same tables;
the SQL name stands beside as a symlink.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import Asset

from pipelines.environment import Environment

if TYPE_CHECKING:
    # Only who sends events needs them; they take a second to import.
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset

_AZURE = {"abfs", "abfss", "wasb", "wasbs"}
NAMESPACE = "nightshift"
"""Of SQL names."""


def lineage(
    read: Iterable[Asset],
    changed: Mapping[str, Mapping[str, Any]],
) -> OperatorLineage:
    """The lineage of one task.

    Args:
        read: The tables that it reads.
        changed: `rows` and `version` of each table that it changed, by SQL name.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    environment = Environment.read()
    inputs = [_input(environment, str(asset.name)) for asset in read]
    outputs = [_output(environment, *one) for one in changed.items()]
    return OperatorLineage(inputs=inputs, outputs=outputs)


def address(environment: Environment, table: str) -> tuple[str, str]:
    """Namespace and name of the table of that SQL name, as OpenLineage names files."""
    path = environment.table_path(table)
    parts = urlsplit(path)
    if "://" not in path:
        return "file", path
    # Hadoop's own scheme of the same store.
    scheme = "s3" if parts.scheme in {"s3a", "s3n"} else parts.scheme
    before, _, host = parts.netloc.rpartition("@")
    # Of Azure it is the container, and of others who signs in with what.
    container = f"{before}@" if scheme in _AZURE and before and ":" not in before else ""
    return f"{scheme}://{container}{host}", parts.path.strip("/")


def _input(environment: Environment, table: str) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset

    namespace, name = address(environment, table)
    return InputDataset(namespace=namespace, name=name, facets=_facets(table))


def _output(environment: Environment, table: str, changed: Mapping[str, Any]) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import dataset_version_dataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    namespace, name = address(environment, table)
    version = str(changed["version"])
    rows = statistics.OutputStatisticsOutputDatasetFacet(rowCount=changed["rows"])
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets={
            **_facets(table),
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version),
        },
        outputFacets={"outputStatistics": rows},
    )


def _facets(table: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import symlinks_dataset

    sql = symlinks_dataset.Identifier(namespace=NAMESPACE, name=table, type="TABLE")
    return {"symlinks": symlinks_dataset.SymlinksDatasetFacet(identifiers=[sql])}
