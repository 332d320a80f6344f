"""What landed files said when they were last read, by the mark that each had.

A folder of files that is moved, restored or given to another owner marks each of them anew, and
none says anything else. Without this every night would read all of them again, for good.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from jobs.lake import publications
from jobs.services.home import private_home
from pipelines import places
from pipelines.environment import Environment

_NAME = "landed-files-{}.json"
_KEEP_SECONDS = 10
"""After which it is kept what was read meanwhile, should the rest take long and be killed."""
_Digests = dict[str, tuple[int, str]]
"""By file its mark and its digest."""


class ReadBefore:
    """Digests of a pipeline's files, kept where all machines and Pods that read them see it.

    They are worth a reading and no more: where they cannot be kept, or looked up, files are read;
    and of two who keep some at once, those of one may be lost.
    """

    def __init__(self, environment: Environment, pipeline: str) -> None:
        """Of that pipeline, in that environment."""
        self._environment = environment
        self._file = environment.jobs / _NAME.format(pipeline)
        self._unkept: _Digests = {}
        self._kept_at = time.monotonic()

    def digest(self, file: Path, marked: int) -> str:
        """SHA-256 of what a file holds.

        Args:
            file: On a disk or in a store.
            marked: Its mark (`pipelines.places.mark`), taken before: what is written since then
                has another one.

        Raises:
            OSError: it cannot be read.
        """
        name = str(file)
        mark, digest = self._known.get(name, (None, ""))
        if mark == marked:
            return digest
        digest = publications.digest_of_file(file)
        self._known[name] = marked, digest
        self._unkept[name] = marked, digest
        if time.monotonic() > self._kept_at + _KEEP_SECONDS:
            self.keep()
        return digest

    def keep(self) -> None:
        """Have what was read found by who asks next."""
        if not self._unkept:
            return
        # Of a store that is away not all that its library raises is an `OSError`.
        with suppress(Exception):
            # Where nothing else is told, it is the home that it lies in.
            private_home(self._environment)
            # Others may have kept some since. What was known stays if a store fails just now.
            kept = {**self._known, **self._kept(), **self._unkept}
            places.write_whole(self._file, json.dumps(kept).encode())
        self._unkept = {}
        self._kept_at = time.monotonic()

    @cached_property
    def _known(self) -> _Digests:
        """Read once: a lake may have a thousand such files."""
        return self._kept()

    def _kept(self) -> _Digests:
        with suppress(Exception):
            told = json.loads(self._file.read_bytes())
            return {name: (mark, digest) for name, (mark, digest) in told.items()}
        return {}
