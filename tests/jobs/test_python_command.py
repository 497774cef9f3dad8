import sys

from ssl_jax.jobs.python_command import module_command


def test_child_gets_the_current_folder_only_if_the_parent_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    assert module_command("ssl_jax.train") == [sys.executable, "-P", "-m", "ssl_jax.train"]
    for path in ("", str(tmp_path)):
        monkeypatch.setattr(sys, "path", ["/elsewhere", path])
        assert module_command("ssl_jax.train") == [sys.executable, "-m", "ssl_jax.train"]
