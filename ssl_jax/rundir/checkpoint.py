"""Checkpoints: Orbax holds the tensors, a manifest says which steps exist.

Layout: `checkpoints/<step>/` is an Orbax checkpoint of nested dicts plus `MANIFEST.json`, written
last. A step without a manifest does not exist; a step that disagrees with it is damaged. Orbax
alone notices neither a flipped bit nor a lost marker. Any JAX program can read the parameters, on
as many devices as the run had (`ssl_jax.export` and evaluations read them on any):

    orbax.checkpoint.StandardCheckpointer().restore("/path/checkpoints/400")["params"]

Every process of a run makes the same calls; process 0 alone judges, moves and deletes.
"""

import concurrent.futures
import importlib.metadata
import json
import logging as standard_logging
import os
import platform
import shutil
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from ssl_jax.errors import BAD_CHECKPOINT, IO_ERROR, Fault
from ssl_jax.rundir import manifest, workdir

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
NOTHING, REFUSED = -1, -2  # in place of a step, when process 0 tells the others its choice
Tree = Any


class Checkpoints:
    """The checkpoints of one run, saved in the background. A context manager: leaving it waits.

    Args:
      directory: made by the first save.
      config_hash: of what makes the run this run and no other; a step with another hash is
        refused. Readers that take any leave it empty.
      keep: how many of the newest intact steps stay on disk.
    """

    def __init__(self, directory: epath.PathLike, *, config_hash: str = "", keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep at least 1 checkpoint, not {keep}")
        logging.get_absl_logger().addFilter(_quieten_orbax)
        self.directory = workdir.absolute(directory)
        self._config_hash, self._keep = config_hash, keep
        self._orbax = ocp.StandardCheckpointer()
        self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """The newest step with a manifest; whether it is intact is not looked at."""
        return max(manifest.steps(self.directory), default=None)

    def save(self, step: int, state: Tree, meta: dict[str, Any]) -> None:
        """Copies the state to the host and returns; the disk is written in the background.

        Once this returns, the next step may take the state's buffers by donation. A save still
        running is awaited first.

        Args:
          state: tree of arrays; tuples and dataclasses are stored as nested dicts.
          meta: anything that JSON holds; `restore_latest` gives it back.

        Raises:
          Fault: IO_ERROR when the disk is too full, when the step is on disk already, or when the
            previous save failed.
        """
        self.wait()
        arrays = _flatten(state)
        size = sum(array.nbytes for array in arrays.values())
        content = {
            "step": step,
            "config_hash": self._config_hash,
            "leaves": {"/".join(path): _kind(array) for path, array in arrays.items()},
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in LIBRARIES},
            # A copy, since the caller may change its own before the manifest is written.
            "meta": json.loads(json.dumps(meta, allow_nan=False)),
        }
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._require_space(size)
            self._orbax.save(self._folder(step), traverse_util.unflatten_dict(arrays))
        except Exception as error:
            self._give_up(step, size, error)
        _crash_at("save.during_data")
        self._pending = self._background.submit(self._commit, step, size, content)

    def check(self) -> None:
        """Raises what the background save raised, if it has ended; cheap enough for every step."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is on disk, manifest included; raises Fault if it failed."""
        if (pending := self._pending) is None:
            return
        try:
            pending.result()
        finally:
            self._pending = None  # not before: another thread that waits must wait as well

    def close(self) -> None:
        """Waits as `wait` does, then ends the background thread."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._orbax.close()

    def restore_latest(
        self, abstract_state: Tree, *, repair: bool = True
    ) -> tuple[Tree, int, dict[str, Any]] | None:
        """Restores the newest intact step; None where no step was ever completed.

        A damaged step is named, moved to `quarantine/`, and the next older one is used. What
        unfinished saves left is named and removed.

        Args:
          abstract_state: tree of ShapeDtypeStructs; every array lands on its struct's sharding,
            on however many devices it was saved (without a sharding: on the first device).
          repair: False for readers, beside a running training: nothing on disk is changed.

        Returns:
          (state, step, meta), or None.

        Raises:
          Fault: BAD_CHECKPOINT when all steps are damaged, or the newest is of a newer format,
            another configuration or another tree, or holds links or special files; IO_ERROR when
            the disk cannot be read.
        """
        self.wait()
        step = self._choose(repair)
        if step is None:
            return None
        folder = self._folder(step)
        wanted = _flatten(abstract_state)
        targets = {path: _placed(leaf) for path, leaf in wanted.items()}
        try:
            content = manifest.verify(folder, hashes=False)
            self._require_same(folder, content, wanted)
            nested = self._orbax.restore(folder, traverse_util.unflatten_dict(targets))
        except Fault:
            raise
        except Exception as error:
            message = f"{folder} cannot be restored: {_first_line(error)}"
            raise Fault(message, BAD_CHECKPOINT) from error
        restored = traverse_util.flatten_dict(nested)
        structure = jax.tree.structure(abstract_state)
        state = jax.tree.unflatten(structure, [restored[path] for path in wanted])
        return state, step, content["meta"]

    def read_latest(
        self, select: Callable[[Tree], Tree]
    ) -> tuple[Tree, int, dict[str, Any]] | None:
        """A part of the newest intact step, as NumPy arrays, for readers of another run.

        Args:
          select: takes, out of nested dicts whose leaves are names, a tree of the names wanted;
            keys with a slash in them are not found.

        Returns:
          (tree, step, meta), or None where no step was ever completed.

        Raises:
          Fault: as `restore_latest` with repair=False.
        """
        step = self._choose(repair=False)
        if step is None:
            return None
        folder = self._folder(step)
        try:
            content = manifest.verify(folder, hashes=False)
            self._require_configuration(folder, content)
            saved = {tuple(name.split("/")): name for name in content["leaves"]}
            wanted = select(traverse_util.unflatten_dict(saved))
            kinds = {tuple(n.split("/")): content["leaves"][n] for n in jax.tree.leaves(wanted)}
            targets = {path: jax.ShapeDtypeStruct(s, dtype) for path, (dtype, s) in kinds.items()}
            arguments = dict.fromkeys(targets, ocp.RestoreArgs(restore_type=np.ndarray))
            part = ocp.args.PyTreeRestore(
                traverse_util.unflatten_dict(targets),
                restore_args=traverse_util.unflatten_dict(arguments),
                partial_restore=True,
            )
            with ocp.PyTreeCheckpointer() as reader:
                nested = reader.restore(folder, part)
        except Fault:
            raise
        except Exception as error:
            message = f"{folder} cannot be restored: {_first_line(error)}"
            raise Fault(message, BAD_CHECKPOINT) from error
        restored = traverse_util.flatten_dict(nested)
        tree = jax.tree.map(lambda name: restored[tuple(name.split("/"))], wanted)
        return tree, step, content["meta"]

    def _folder(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _commit(self, step: int, size: int, content: dict[str, Any]) -> None:
        """In the background: once the data is on disk the manifest, then old steps go."""
        try:
            self._orbax.wait_until_finished()
            if jax.process_index() == 0:
                _crash_at("save.before_manifest")
                manifest.write(self._folder(step), content)
                manifest.delete_old(self.directory, keep=self._keep)
        except Exception as error:
            self._give_up(step, size, error)

    def _require_space(self, size: int) -> None:
        if workdir.is_remote(self.directory):
            return
        if shutil.disk_usage(self.directory).free < 1.2 * size:
            raise OSError("disk full")

    def _give_up(self, step: int, size: int, error: Exception) -> NoReturn:
        """Removes the failed save, lest it keep the disk full, and raises its Fault."""
        room = ""
        if not workdir.is_remote(self.directory) and self.directory.exists():
            free = shutil.disk_usage(self.directory).free
            room = f" (needs {manifest.readable(1.2 * size)}, {manifest.readable(free)} free)"
        if jax.process_index() == 0:
            for leftover in manifest.leftovers(self.directory):
                leftover.rmtree()
        good = self.latest_step()
        last = "no step was saved before" if good is None else f"the last saved step is {good}"
        raise Fault(
            f"step {step} not saved in {self.directory}: {_first_line(error)}{room}; {last}. "
            "Make room or mend the disk and run the same command again",
            IO_ERROR,
        ) from error

    def _choose(self, repair: bool) -> int | None:
        """The step to restore. Process 0 decides, lest a transient error split the processes."""
        choice, fault = REFUSED, None
        if jax.process_index() == 0:
            try:
                newest = manifest.newest_intact(self.directory, repair=repair)
                choice = NOTHING if newest is None else newest
            except Fault as error:
                fault = error
            except OSError as error:
                fault = Fault(f"cannot read {self.directory}: {error}", IO_ERROR)
        if jax.process_count() > 1:
            choice = int(multihost_utils.broadcast_one_to_all(np.int32(choice)))
        if choice == REFUSED:
            raise fault or Fault("process 0 refused the checkpoint, see there", BAD_CHECKPOINT)
        return None if choice == NOTHING else choice

    def _require_configuration(self, folder: epath.Path, content: dict[str, Any]) -> None:
        written, ours = content["config_hash"], self._config_hash
        if written and ours and written != ours:
            raise Fault(
                f"{folder} is of another configuration ({written[:12]}, "
                f"this run's is {ours[:12]}); choose another --workdir",
                BAD_CHECKPOINT,
            )

    def _require_same(self, folder: epath.Path, content: dict[str, Any], wanted: Tree) -> None:
        self._require_configuration(folder, content)
        saved = content["leaves"]
        expected = {"/".join(path): _kind(leaf) for path, leaf in wanted.items()}
        problems = [f"{n}: not in the checkpoint" for n in expected if n not in saved]
        problems += [f"{n}: only in the checkpoint" for n in saved if n not in expected]
        problems += [
            f"{n}: {_spell(saved[n])} in the checkpoint, {_spell(expected[n])} in this run"
            for n in expected
            if n in saved and saved[n] != expected[n]
        ]
        if problems:
            shown = problems[:10] + [f"and {len(problems) - 10} more"] * (len(problems) > 10)
            raise Fault(
                f"{folder} does not fit this model and optimizer:\n  " + "\n  ".join(shown),
                BAD_CHECKPOINT,
            )


def _flatten(tree: Tree) -> dict[tuple[str, ...], Any]:
    """{("params", "head", "kernel"): leaf}: Orbax then sees only nested dicts of arrays, so that
    empty dicts, optimizer tuples and masked nodes come back from the tree that asks for them."""
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _kind(leaf: Any) -> list[Any]:
    return [str(leaf.dtype), list(leaf.shape)]


def _spell(kind: list[Any]) -> str:
    return f"{kind[0]}[{','.join(map(str, kind[1]))}]"


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    # The operating system's reason stands at the end of tensorstore's long sentences.
    return text if len(text) <= 300 else f"{text[:100]} … {text[-200:]}"


def _quieten_orbax(record: standard_logging.LogRecord) -> bool:
    # Its errors reach us as exceptions, and the user as one Fault instead of pages of traceback.
    return "orbax" not in record.pathname or record.levelno == standard_logging.WARNING


def _crash_at(point: str) -> None:
    """Dies as by SIGKILL at the point that SSLJAX_CRASH_AT names; the tests of resuming use it."""
    if os.environ.get("SSLJAX_CRASH_AT") == point:
        os._exit(137)
