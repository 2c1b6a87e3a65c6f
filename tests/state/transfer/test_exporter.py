"""`lora state export`: tables for other tools."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from bundle_fixture import lora


def test_tables_are_read_by_other_tools(spec: Path, tmp_path: Path) -> None:
    state = spec.parent / ".lora"
    rows = list(csv.DictReader(io.StringIO(lora(state, "export", "--table", "runs").stdout)))
    assert {row["run"] for row in rows if row["r"] == "8"} == {"rank/r=8/seed=1", "rank/r=8/seed=2"}
    figures = json.loads(lora(state, "export", "--table", "metrics", "--format", "json").stdout)
    assert {
        row["value"] for row in figures if row["metric"] == "exact_match" and row["configuration"] == "rank/r=8"
    } == {0.8}
    assert lora(state, "export", "--format", "parquet", "--out", str(tmp_path)).exit_code == 0
    found = pd.read_parquet(tmp_path / "metrics.parquet")
    assert found[found["metric"] == "log_loss"]["value"].max() == pytest.approx(1.9)
    assert len(pd.read_parquet(tmp_path / "curves.parquet")) == 4 * 2
    with closing(sqlite3.connect(state / "state.db")) as index:
        assert len(pd.read_sql("SELECT * FROM curves", index)) == 4 * 2
