"""Its place puts tests/laws on the path; the pool of adapters is made once for all its tests."""

from __future__ import annotations

import pool as adapters
import pytest
from reference import Reference


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> adapters.Pool:
    return adapters.make(tmp_path_factory.mktemp("laws"))


@pytest.fixture(scope="session")
def dense(pool: adapters.Pool) -> Reference:
    return Reference(pool.folder)
