"""The same way on S3: nothing changes but configs/s3.toml and environment variables."""

from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "s3.toml"


@pytest.fixture(params=["moto_s3", pytest.param("seaweed_s3", marks=pytest.mark.s3)])
def on_s3(request, sessionlake, tmp_path):
    server = request.getfixturevalue(request.param)
    sessionlake.environment.update(server.environment(server.settings().url))
    sessionlake.environment["SESSIONLAKE_HOT__PATH"] = str(tmp_path / "hot")
    return sessionlake


def test_from_edge_cases_to_a_training_set(on_s3, edge_cases):
    on_s3("--config", CONFIG, "import", edge_cases, code=4)
    on_s3("--config", CONFIG, "compact")
    query = ("--config", CONFIG, "query", "select count(*) as n from sessions")
    sessions = on_s3.json(*query)["rows"][0]["n"]
    assert sessions > 30
    on_s3("--config", CONFIG, "import", edge_cases, code=4)
    on_s3("--config", CONFIG, "compact")
    assert on_s3.json(*query)["rows"][0]["n"] == sessions
    assert on_s3.json("--config", CONFIG, "export", "preferences")["rows"] > 0
