"""The facts of a run: written, read back, compared, damaged."""

import re

import numpy as np
import pytest

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.rundir import facts

FACTS = {"words": np.array(["a", "bc"]), "counts": np.arange(3)}


def test_facts_are_read_as_written(tmp_path):
    assert facts.read(tmp_path) == {}
    facts.write(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    facts.write(tmp_path, FACTS)
    read = facts.read(tmp_path)
    assert read.keys() == FACTS.keys()
    for name, array in FACTS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert facts.digest(read) == facts.digest(FACTS)


def test_the_digest_depends_on_names_types_and_values_but_not_on_the_order():
    assert facts.digest({}) == ""
    assert facts.digest(dict(reversed(FACTS.items()))) == facts.digest(FACTS)
    others = [
        FACTS | {"counts": np.arange(3) + 1},
        FACTS | {"counts": np.arange(3, dtype=np.int32)},
        FACTS | {"counts": np.arange(3)[None]},
        {"words": FACTS["words"], "count": FACTS["counts"]},
    ]
    digests = [facts.digest(other) for other in (FACTS, *others)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("cut", [0, 20, -10])
def test_a_damaged_file_is_named(tmp_path, cut):
    facts.write(tmp_path, FACTS)
    file = tmp_path / facts.FILE
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(Fault, match=r"facts\.npz is damaged.*Start the training again") as damaged:
        facts.read(tmp_path)
    assert damaged.value.code == BAD_DATA


def test_a_missing_or_exchanged_file_is_refused(tmp_path):
    meta = {"facts": facts.digest(FACTS)}
    facts.require_same(tmp_path, FACTS, meta)
    facts.require_same(tmp_path, FACTS, {})  # an older run, whose checkpoint does not name them
    facts.require_same(tmp_path, {}, {})
    others = {"is missing": {}, "is not the file": FACTS | {"counts": np.arange(3) + 1}}
    for reason, known in others.items():
        place = re.escape(str(tmp_path / facts.FILE))
        with pytest.raises(Fault, match=f"{place} {reason}.*Copy the original") as refused:
            facts.require_same(tmp_path, known, meta)
        assert refused.value.code == BAD_DATA
