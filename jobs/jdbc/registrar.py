"""Keeps the names that Spark knows the same as the tables of the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from jobs.lake.stored import stored_tables
from pipelines.environment import Environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Registrar:
    """Names in a catalog in memory: none of them owns a file."""

    def __init__(self, environment: Environment, spark: SparkSession) -> None:
        self._environment = environment
        self._spark = spark
        self._known: dict[str, str] = {}
        """Columns of each registered table, as its log tells them."""

    def follow(self) -> None:
        """Register what is new or has other columns, and forget what is gone.

        A table that cannot be read, as of a broken log, is told and keeps no other one out; it goes
        on under its name as long as it is known.
        """
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        # The second is a job of it that was cancelled.
        of_spark = (PySparkException, Py4JJavaError)
        there = stored_tables(self._environment)
        # To Spark a name that has come back with other capitals is the same: it is registered anew.
        again = {name.lower() for name in there}
        for name in {*self._known}.difference(there):
            if name.lower() in again:
                del self._known[name]
        gone = [name for name in self._known if name not in there]
        for name in (*gone, *there):
            try:
                if name in there:
                    self._follow(name)
                else:
                    self._forget(name)
            except (DeltaError, OSError, *of_spark) as error:
                print(f"{name} cannot be read, and will be tried again: {error}", flush=True)

    def _follow(self, name: str) -> None:
        columns = self._columns(name)
        if self._known.get(name) != columns:
            self._forget(name)
            self._register(name)
            self._known[name] = columns

    def _columns(self, name: str) -> str:
        return DeltaTable(self._environment.table_path(name)).schema().to_json()

    def _register(self, name: str) -> None:
        schema, _, table = name.partition(".")
        place = self._environment.table_path(name).replace("\\", "\\\\").replace("'", "\\'")
        self._spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{schema}`")
        self._spark.sql(f"CREATE TABLE `{schema}`.`{table}` USING delta LOCATION '{place}'")

    def _forget(self, name: str) -> None:
        schema, _, table = name.partition(".")
        # Of a table with a place of its own only the name goes.
        self._spark.sql(f"DROP TABLE IF EXISTS `{schema}`.`{table}`")
        self._known.pop(name, None)
