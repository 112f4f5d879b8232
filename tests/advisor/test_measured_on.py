import json

import numpy as np
import pytest

from advisor.measured_on import MeasuredOn
from advisor.run_manifest import DamagedArtefact
from advisor.runs import RunDirectory
from estimators.stored_tasks import write_records


def test_tasks_share_what_their_test_sets_have_in_common():
    found = MeasuredOn.of_names({"a": ["1", "2", "3", "4"], "b": ["4"], "c": ["9", "8"]})
    np.testing.assert_allclose(found.overlap(["a", "b", "c"]), [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    assert found.size_array(["c", "a", "unknown"]).tolist() == [2, 4, np.inf]
    assert MeasuredOn.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_overlap_is_the_correlation_of_sampling_errors():
    """Means over sets that share samples, against simulation."""
    sets = {"a": [str(i) for i in range(40)], "b": [str(i) for i in range(20, 60)]}
    losses = np.random.default_rng(0).exponential(size=(20_000, 60))
    means = np.stack([losses[:, [int(i) for i in members]].mean(axis=1) for members in sets.values()])
    overlap = MeasuredOn.of_names(sets).overlap(list(sets))
    np.testing.assert_allclose(np.corrcoef(means), overlap, atol=0.02)


def test_splits_of_another_shape_are_refused_by_name(tmp_path):
    run = RunDirectory.create(tmp_path, "p")
    assert MeasuredOn.of_run(run) is None
    write_records(run.path, {"a": {"pool": "p", "samples": {"test": 3}}}, seed=0)
    with pytest.raises(DamagedArtefact, match="splits.json of run .* probe. on this run again"):
        MeasuredOn.of_run(run)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="sizes=.*at least 1 for each task"):
        MeasuredOn(sizes={"a": 0}, shared={})
    with pytest.raises(ValueError, match="shared=.*must lie in"):
        MeasuredOn(sizes={"a": 1, "b": 1}, shared={"a": {"b": 2.0}})
