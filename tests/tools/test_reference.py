"""The pages of docs/reference say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import reference


@pytest.mark.policy
def test_the_reference_is_what_the_code_says() -> None:
    assert reference.differences() == []


def test_a_page_that_is_old_missing_or_of_nothing_any_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    reference.write()
    assert reference.differences() == []
    settings = tmp_path / "settings.md"
    settings.write_text(settings.read_text().replace("`8080`", "`8081`"))
    (tmp_path / "commands.md").unlink()
    (tmp_path / "tables" / "gone.md").write_text((tmp_path / "tables" / "ops.md").read_text())
    (tmp_path / "own.md").write_text("written by a person")
    way_out = "python -m tools.reference --write"
    assert reference.differences() == [
        f"docs/reference/commands.md is not what the code says: {way_out}",
        f"docs/reference/settings.md is not what the code says: {way_out}",
        f"docs/reference/tables/gone.md is of nothing that is there: {way_out}",
    ]


def test_every_command_and_setting_is_there_and_no_cell_breaks_its_row() -> None:
    pages = reference.pages()
    assert "## nightshift backtest" in pages["commands.md"]
    assert "`NIGHTSHIFT_AIRFLOW_PORT`" in pages["settings.md"]
    assert "## flights.predictions_history" in pages["tables/flights.md"]
    for text in pages.values():
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        cells = [row.replace("\\|", "") for row in rows]
        assert {row.count("|") for row in cells} <= {3, 4}
