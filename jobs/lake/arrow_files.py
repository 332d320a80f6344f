"""Arrow's own file system below a Delta table. Alone here, because it works around a defect.

delta-rs hands pyarrow a file system written in Python. Threads of a scan that was not read to its
end can then still call it while the interpreter ends, which aborts or hangs the process
(apache/arrow issue 34314). Delete this, and the `filesystem=` arguments, when that issue is closed.
"""

from __future__ import annotations

from pyarrow import fs


def arrow_files(table: str) -> fs.FileSystem:
    """The file system whose root is the table of that path or URL."""
    system, root = fs.FileSystem.from_uri(table)
    return fs.SubTreeFileSystem(root, system)
