"""The code keeps its shape.

Imports go one way, each heavy library has one home, each pipeline has all its parts.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import catalog
from pipelines.environment import ROOT
from tools import PACKAGES as MEASURED
from tools import import_graph
from tools.import_graph import Picture

pytestmark = pytest.mark.policy

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
PARTS = {
    "its declaration": "pipelines/{name}.py",
    "its transforms": "jobs/transforms/{name}.py",
    "its suites": "expectations/{name}.py",
    "its DAG": "dags/{name}.py",
    "what it promises to consumers": "pipelines/contracts/{name}.json",
    "tests of its transforms": "tests/jobs/transforms/test_{name}.py",
    "tests of its suites": "tests/expectations/test_{name}.py",
    "its test data": "tests/data/{name}",
}
BREACHES = {
    "pipelines imports nobody": ("pipelines", "import jobs"),
    (
        "imports go one way: dags, plugins and nightshift, then jobs, then expectations and "
        "features, then pipelines"
    ): ("expectations", "import features"),
    (
        "inside jobs: stages, commands and pages, then training, night, warehouse and jdbc, "
        "then lake, then spark, then services, ingestion, transforms, notifications and examples"
    ): ("jobs/lake", "import jobs.stages"),
    "dags imports only pipelines": ("dags", "import jobs"),
    "airflow is imported only in dags and plugins": ("jobs", "def late(): import airflow.sdk"),
    "pyspark is imported only in jobs and features": (
        "expectations",
        "from pyspark.sql import functions",
    ),
    "tensorflow, keras, horovod, mlflow and optuna are imported only in jobs.training": (
        "jobs",
        "from keras import layers",
    ),
    "great_expectations is imported only in expectations": ("jobs", "import great_expectations"),
    "feast is imported only in features": ("jobs", "from feast import FeatureView"),
    "psycopg is imported only in jobs.warehouse and for locks": ("jobs", "import psycopg"),
}
PACKAGES = (
    *("pipelines", "expectations", "features", "dags", "plugins", "nightshift", "jobs"),
    *(
        f"jobs/{part}"
        for part in (
            "stages",
            "commands",
            "pages",
            "planning",
            "training",
            "lake",
            "spark",
            "services",
            "ingestion",
            "transforms",
            "notifications",
            "examples",
            "warehouse",
            "jdbc",
        )
    ),
)
HEAVY = (
    "airflow",
    "pyspark",
    "tensorflow",
    "keras",
    "horovod",
    "mlflow",
    "great_expectations",
    "feast",
    "pandas",
    "numpy",
    "pyarrow",
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    wide = {"PYTHONPATH": str(folder), "COLUMNS": "300"}
    command = [str(LINT_IMPORTS), "--no-logo", "--no-cache", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, env=wide, capture_output=True, text=True)


def small_copy(folder: Path) -> Path:
    """A folder with the packages of the code, all empty."""
    for package in PACKAGES:
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    for module in ("__main__", "night", "outcome", "output", "telling", "version"):
        (folder / "jobs" / f"{module}.py").touch()
    return folder


def missing_parts(root: Path, name: str) -> list[str]:
    paths = {part: pattern.format(name=name) for part, pattern in PARTS.items()}
    return [
        f"{name} lacks {part}: {path}" for part, path in paths.items() if not (root / path).exists()
    ]


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def picture(*edges: tuple[str, str]) -> Picture:
    """A picture of these arrows and their ends."""
    nodes: set[str] = set()
    for edge in edges:
        nodes.update(edge)
    return Picture(nodes=frozenset(nodes), edges=frozenset(edges))


def document_with(folder: Path, text: str) -> Path:
    """A document whose picture is that text."""
    document = folder / "architecture.md"
    document.write_text(f"# Before\n{import_graph.BEGIN}\n{text}\n{import_graph.END}\nAfter.\n")
    return document


def test_the_picture_of_the_architecture_shows_what_the_code_imports() -> None:
    drawn = import_graph.of_document(import_graph.DOCUMENT)
    wrong = import_graph.differences(drawn=drawn, real=import_graph.of_code())
    assert not wrong, "\n".join([*wrong, "Draw it anew: python -m tools.import_graph --write"])


def test_the_picture_of_the_code_leaves_pipelines_out() -> None:
    real = import_graph.of_code()
    assert {"dags", "expectations", "features", "jobs.__main__", "jobs.lake"} <= real.nodes
    assert ("jobs.lake", "jobs.spark") in real.edges
    assert "pipelines" not in real.nodes


def test_an_arrow_that_only_one_of_picture_and_code_has_is_named() -> None:
    drawn = picture(("jobs.night", "jobs.lake"), ("jobs.lake", "jobs.night"))
    real = picture(("jobs.night", "jobs.lake"), ("jobs.night", "jobs.spark"))
    assert import_graph.differences(drawn=drawn, real=real) == [
        "The picture lacks jobs.night --> jobs.spark.",
        "The picture lacks jobs.spark.",
        "The picture has jobs.lake --> jobs.night, which the code does not import.",
    ]


def test_a_package_that_is_no_more_is_named() -> None:
    drawn = Picture(nodes=frozenset({"jobs.attic"}), edges=frozenset())
    assert import_graph.differences(drawn=drawn, real=picture()) == [
        "The picture has jobs.attic, which is not there."
    ]


@pytest.mark.parametrize("old", ["", "an old picture"])
def test_a_picture_that_is_drawn_is_read_as_it_was_meant(old: str, tmp_path: Path) -> None:
    meant = picture(("jobs.__main__", "jobs.night"), ("jobs.night", "features"))
    document = document_with(tmp_path, old)
    import_graph.write(document, meant)
    assert import_graph.of_document(document) == meant
    before, _, rest = document.read_text().partition(import_graph.BEGIN)
    drawn, _, after = rest.partition(import_graph.END)
    assert (before, after) == ("# Before\n", "\nAfter.\n")
    assert drawn == f"\n{import_graph.mermaid(meant)}\n"


def test_every_package_of_the_picture_has_a_row_in_the_table() -> None:
    text = import_graph.DOCUMENT.read_text()
    described = re.findall(r"^\| `([\w/]+?)(?:/|\.py)` \|", text, re.MULTILINE)
    nodes = import_graph.of_code().nodes | {"pipelines"}
    paths = {node.replace(".", "/") for node in nodes}
    lacking = sorted(paths - set(described))
    assert not lacking, f"The table of docs/architecture.md has no row for {lacking}"


def test_an_arrow_to_pipelines_is_not_to_be_drawn(tmp_path: Path) -> None:
    document = document_with(tmp_path, "  jobs.night --> pipelines")
    wrong = import_graph.differences(drawn=import_graph.of_document(document), real=picture())
    assert wrong == ["The picture has jobs.night --> pipelines, which the code does not import."]


def test_a_document_without_a_place_for_the_picture_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "architecture.md"
    document.write_text("# No picture\n")
    with pytest.raises(ValueError, match="must hold the lines"):
        import_graph.of_document(document)


def test_what_is_measured_and_drawn_is_what_the_contracts_are_about() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(MEASURED) == sorted(declared["tool"]["importlinter"]["root_packages"])


def test_the_import_contracts_hold() -> None:
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout


def test_an_empty_copy_breaks_no_contract(tmp_path: Path) -> None:
    checked = lint_imports(small_copy(tmp_path))
    assert checked.returncode == 0, checked.stdout


def test_a_breach_is_named_by_the_sentence_that_it_breaks(tmp_path: Path) -> None:
    copy = small_copy(tmp_path)
    for number, (package, line) in enumerate(BREACHES.values()):
        (copy / package / f"rogue{number}.py").write_text(f"{line}\n")
    checked = lint_imports(copy)
    assert checked.returncode == 1
    assert sorted(re.findall(r"^(.*) BROKEN$", checked.stdout, re.MULTILINE)) == sorted(BREACHES)


def test_every_contract_has_a_breach_that_proves_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    assert sorted(contract["name"] for contract in declared) == sorted(BREACHES)


def test_the_spine_needs_the_standard_library_alone_unless_a_place_is_a_url() -> None:
    allowed = sys.stdlib_module_names | {"pipelines"}
    files = (ROOT / "pipelines").rglob("*.py")
    odd = []
    for path in files:
        # It imports that where a URL is opened (docs/decisions/0023).
        for_urls = {"upath"} if path.name == "places.py" else set()
        foreign = set(imported(path)) - allowed - for_urls
        odd += [f"{path.name} imports {name}" for name in foreign]
    assert not odd


def test_the_command_starts_without_a_heavy_library() -> None:
    program = (
        "import sys, jobs.__main__ as command; command.parser(); "
        "print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    )
    started = subprocess.run(
        [sys.executable, "-c", program, *HEAVY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.split() == []


@pytest.mark.parametrize("name", catalog.names())
def test_every_pipeline_has_all_its_parts(name: str) -> None:
    missing = missing_parts(ROOT, name)
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(part: str, tmp_path: Path) -> None:
    others = [pattern for other, pattern in PARTS.items() if other != part]
    for pattern in others:
        path = tmp_path / pattern.format(name="taxi")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert missing_parts(tmp_path, "taxi") == [
        f"taxi lacks {part}: {PARTS[part].format(name='taxi')}"
    ]


def names_weather(path: Path) -> bool:
    """Whether a source file imports a part of the pipeline `weather`, or asks for it by name."""
    text = path.read_text()
    asks = re.search(r"""pipeline\(["']weather["']\)|\bweather\.(predictions|hours)\b""", text)
    nodes = ast.walk(ast.parse(text))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return asks is not None or any(module and module.endswith(".weather") for module in modules)


def test_a_second_pipeline_is_new_files_only() -> None:
    own = set()
    naming = set()
    for package in PACKAGES[:7]:
        for path in (ROOT / package).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            if path.stem == "weather":
                own.add(name)
            if names_weather(path):
                naming.add(name)
    assert own == {
        "dags/weather.py",
        "expectations/weather.py",
        "jobs/examples/weather.py",
        "jobs/transforms/weather.py",
        "pipelines/weather.py",
    }
    assert naming <= own
