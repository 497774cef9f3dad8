import pytest
from matplotlib.figure import Figure

from ssl_jax import cli, preview
from ssl_jax.errors import USAGE, Fault
from ssl_jax.report.figures import style

HEADS = {"png": b"\x89PNG", "pdf": b"%PDF-", "svg": b"<?xml"}


@pytest.mark.parametrize("name", ["x.png", "x.PDF", "below/x.svg"])
def test_the_suffix_chooses_the_format(tmp_path, name):
    style.save(Figure(), tmp_path / name)
    head = HEADS[name.lower().rpartition(".")[2]]
    assert (tmp_path / name).read_bytes().startswith(head)


@pytest.mark.parametrize("name", ["x.foo", "x", "x.jpg"])
def test_preview_refuses_other_formats(tmp_path, monkeypatch, name):
    monkeypatch.setattr(cli, "config", lambda: None)
    monkeypatch.setattr(preview.flags, "FLAGS", type("Flags", (), {"out": str(tmp_path / name)}))
    with pytest.raises(Fault, match=r"unknown format; end the name in \.png or \.pdf") as fault:
        preview.main()
    assert fault.value.code == USAGE
