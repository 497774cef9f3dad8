"""Checkpoints of a run: Orbax stores the arrays, a manifest records which steps exist.

Layout: `checkpoints/<step>/` is an Orbax checkpoint of nested dicts, plus `MANIFEST.json`. A save
writes both to `<step>.tmp` and then renames the folder. A step that does not match its manifest, or
has none, is damaged; Orbax alone detects neither a flipped bit nor a missing file.

Any JAX program on as many devices as the run had can read the parameters without this package
(`ssl_jax.export` and evaluations read them on any number of devices):

    orbax.checkpoint.StandardCheckpointer().restore("/path/checkpoints/400")["params"]

Every process of a run makes the same calls. Only process 0 verifies, moves and deletes steps.
"""

import concurrent.futures
import contextlib
import importlib.metadata
import json
import logging as standard_logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils

from ssl_jax.errors import BAD_CHECKPOINT, IO_ERROR, Fault
from ssl_jax.rundir import leaves, manifest, workdir

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Process 0 sends these instead of a step to the other processes.
NO_STEP, REFUSED = -1, -2
Tree = Any


class Checkpoints:
    """The checkpoints of one run, saved in the background.

    As a context manager, it waits for a running save when the block ends.

    Args:
      directory: folder of all steps; the first save creates it.
      config_hash: hash of the config fields that identify the run (`metadata.config_hash`). A step
        with another hash is refused. The empty string accepts every step.
      keep: number of newest intact steps that stay on disk, at least 1.
    """

    def __init__(self, directory: epath.PathLike, *, config_hash: str = "", keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, not {keep}")
        logging.get_absl_logger().addFilter(_quieten_orbax)
        self.directory = workdir.absolute(directory)
        self._config_hash, self._keep = config_hash, keep
        self._orbax = ocp.StandardCheckpointer()
        self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None
        self._deletion_failed = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def latest_step(self) -> int | None:
        """Returns the newest step that has a manifest, without verifying it; None if no step has.

        A save that is still running does not count.
        """
        return max(manifest.steps(self.directory), default=None)

    def save(self, step: int, state: Tree, meta: dict[str, Any]) -> None:
        """Copies the state to host memory and returns; a background thread writes it to disk.

        The caller may donate or overwrite the state's buffers as soon as this method returns. If
        an earlier save is still running, this method first waits for it.

        Args:
          step: number of updates done; not yet on disk.
          state: tree of arrays. Tuples and dataclasses are stored as nested dicts.
          meta: JSON-compatible values that `restore_latest` returns.

        Raises:
          Fault: IO_ERROR if the disk is too full, if the step is already on disk, or if the
            previous save failed.
          ValueError: if `meta` holds NaN or infinity.
        """
        self.wait()
        arrays = leaves.flatten(state)
        size = sum(array.nbytes for array in arrays.values())
        content = {
            "step": step,
            "config_hash": self._config_hash,
            "leaves": leaves.kinds(arrays),
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in LIBRARIES},
            # A copy, because the caller may change `meta` before the manifest is written.
            "meta": json.loads(json.dumps(meta, allow_nan=False)),
        }
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._require_space(size)
            self._orbax.save(self._temporary(step), traverse_util.unflatten_dict(arrays))
        except Exception as error:
            self._abandon(step, size, error)
        _crash_at("save.during_data")
        self._pending = self._background.submit(self._commit, step, size, content)

    def check(self) -> None:
        """Raises the Fault of a background save that failed; does not wait for a running save.

        The call is cheap enough to be made at every training step.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save, manifest included, is on disk.

        Raises:
          Fault: IO_ERROR if that save failed. A failure is raised once.
        """
        if (pending := self._pending) is None:
            return
        try:
            pending.result()
        finally:
            # Not reset earlier, so that another thread that calls wait() also waits.
            self._pending = None

    def close(self) -> None:
        """Waits for the last save as `wait` does, then ends the background thread."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._orbax.close()

    def restore_latest(
        self, abstract_state: Tree, *, repair: bool = True
    ) -> tuple[Tree, int, dict[str, Any]] | None:
        """Restores the newest intact step, or returns None if no step exists.

        Skips damaged steps: logs each, moves it to `quarantine/`, and tries the next older step.
        Also logs and removes what unfinished saves left behind.

        Args:
          abstract_state: tree of ShapeDtypeStructs. Each array gets its struct's sharding, however
            many devices saved it. Without a sharding, it is placed on the first local device.
          repair: False changes nothing on disk. Use it to read the checkpoints of a run that may
            still be training.

        Returns:
          (state, step, meta), or None.

        Raises:
          Fault: BAD_CHECKPOINT if all steps are damaged, or if the newest intact step has a newer
            format, another config hash or other leaves, or contains links or special files;
            IO_ERROR if the disk cannot be read.
        """
        self.wait()
        step = self._choose_step(repair)
        if step is None:
            return None
        folder = self._folder(step)
        targets = leaves.flatten(abstract_state)
        structs = {path: leaves.with_sharding(leaf) for path, leaf in targets.items()}
        with _restore_errors_as_faults(folder):
            content = manifest.verify(folder, hashes=False)
            self._require_same_config(folder, content)
            _require_same_leaves(folder, content, targets)
            nested = self._orbax.restore(folder, traverse_util.unflatten_dict(structs))
        restored = traverse_util.flatten_dict(nested)
        structure = jax.tree.structure(abstract_state)
        state = jax.tree.unflatten(structure, [restored[path] for path in targets])
        return state, step, content["meta"]

    def read_latest(
        self, select: Callable[[Tree], Tree]
    ) -> tuple[Tree, int, dict[str, Any]] | None:
        """Reads a part of the newest intact step as NumPy arrays; changes nothing on disk.

        The caller need not know the whole state of the run that wrote the checkpoint.

        Args:
          select: function from the names in the checkpoint to a tree of the names to read. Its
            argument is nested dicts such as {"params": {"kernel": "params/kernel"}}. A leaf whose
            own key contains a slash cannot be read.

        Returns:
          (tree of arrays, step, meta), or None if no step exists.

        Raises:
          Fault: the same as `restore_latest`, except for other leaves.
        """
        while (step := self._choose_step(repair=False)) is not None:
            try:
                tree, meta = self._read(step, select)
            except Fault:
                if step in manifest.steps(self.directory):
                    raise
            # A running training may have deleted the step, because newer ones exist.
            if not _on_any_process(step not in manifest.steps(self.directory)):
                return tree, step, meta
        return None

    def _read(self, step: int, select: Callable[[Tree], Tree]) -> tuple[Tree, dict[str, Any]]:
        folder = self._folder(step)
        with _restore_errors_as_faults(folder):
            content = manifest.verify(folder, hashes=False)
            self._require_same_config(folder, content)
            names = {tuple(name.split("/")): name for name in content["leaves"]}
            selected = select(traverse_util.unflatten_dict(names))
            kinds = {tuple(n.split("/")): content["leaves"][n] for n in jax.tree.leaves(selected)}
            structs = {path: jax.ShapeDtypeStruct(s, dtype) for path, (dtype, s) in kinds.items()}
            arguments = dict.fromkeys(structs, ocp.RestoreArgs(restore_type=np.ndarray))
            part = ocp.args.PyTreeRestore(
                traverse_util.unflatten_dict(structs),
                restore_args=traverse_util.unflatten_dict(arguments),
                partial_restore=True,
            )
            with ocp.PyTreeCheckpointer() as reader:
                nested = reader.restore(folder, part)
        restored = traverse_util.flatten_dict(nested)
        tree = jax.tree.map(lambda name: restored[tuple(name.split("/"))], selected)
        return tree, content["meta"]

    def _folder(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _temporary(self, step: int) -> epath.Path:
        return self.directory / f"{step}.tmp"

    def _commit(self, step: int, size: int, content: dict[str, Any]) -> None:
        """Waits for the data, completes the step, then deletes old steps. Runs in background."""
        try:
            self._orbax.wait_until_finished()
            if jax.process_index() == 0:
                _crash_at("save.before_manifest")
                manifest.write(self._temporary(step), content)
                manifest.publish(self._temporary(step), self._folder(step))
        except Exception as error:
            self._abandon(step, size, error)
        if jax.process_index() == 0:
            self._delete_old()

    def _delete_old(self) -> None:
        try:
            manifest.delete_old(self.directory, keep=self._keep)
        except OSError as error:
            # For example, a network disk keeps files that a reader has open. The step is saved.
            if not self._deletion_failed:
                self._deletion_failed = True
                logging.warning(
                    "cannot delete old steps in %s: %s; trying again after every save",
                    self.directory,
                    error,
                )

    def _require_space(self, size: int) -> None:
        if workdir.is_remote(self.directory):
            return
        if shutil.disk_usage(self.directory).free < 1.2 * size:
            raise OSError("disk full")

    def _abandon(self, step: int, size: int, error: Exception) -> NoReturn:
        """Removes a failed save, so that it does not fill the disk, and raises its Fault."""
        room = ""
        if not workdir.is_remote(self.directory) and self.directory.exists():
            needed = manifest.format_bytes(1.2 * size)
            free = manifest.format_bytes(shutil.disk_usage(self.directory).free)
            room = f" (needs {needed}, {free} free)"
        if jax.process_index() == 0:
            with contextlib.suppress(OSError):
                for leftover in manifest.unfinished(self.directory):
                    leftover.rmtree()
        latest = self.latest_step()
        last = "no step was saved before" if latest is None else f"the last saved step is {latest}"
        raise Fault(
            f"step {step} not saved in {self.directory}: {_first_line(error)}{room}; {last}. "
            "Free some space or repair the disk, then run the same command again",
            IO_ERROR,
        ) from error

    def _choose_step(self, repair: bool) -> int | None:
        """Returns the step to restore.

        Process 0 chooses for all, so that a transient error cannot make processes disagree.
        """
        choice, fault = REFUSED, None
        if jax.process_index() == 0:
            try:
                newest = manifest.newest_intact(self.directory, repair=repair)
                choice = NO_STEP if newest is None else newest
            except Fault as error:
                fault = error
            except OSError as error:
                fault = Fault(f"cannot read {self.directory}: {error}", IO_ERROR)
        if jax.process_count() > 1:
            choice = int(multihost_utils.broadcast_one_to_all(np.int32(choice)))
        if choice == REFUSED:
            raise fault or Fault(
                "process 0 refused the checkpoint; its message gives the reason", BAD_CHECKPOINT
            )
        return None if choice == NO_STEP else choice

    def _require_same_config(self, folder: epath.Path, content: dict[str, Any]) -> None:
        saved, expected = content["config_hash"], self._config_hash
        if saved and expected and saved != expected:
            raise Fault(
                f"{folder} belongs to a run with another config (config hash {saved[:12]}, this "
                f"run has {expected[:12]}). Choose another --workdir",
                BAD_CHECKPOINT,
            )


def _on_any_process(condition: bool) -> bool:
    if jax.process_count() == 1:
        return condition
    return bool(multihost_utils.process_allgather(np.bool_(condition)).any())


def _require_same_leaves(folder: epath.Path, content: dict[str, Any], targets: Tree) -> None:
    if lines := leaves.differences(content["leaves"], leaves.kinds(targets)):
        raise Fault(
            f"{folder} does not match this model and optimizer:\n  " + "\n  ".join(lines),
            BAD_CHECKPOINT,
        )


@contextlib.contextmanager
def _restore_errors_as_faults(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except Fault:
        raise
    except Exception as error:
        message = f"{folder} cannot be restored: {_first_line(error)}"
        raise Fault(message, BAD_CHECKPOINT) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    # tensorstore's messages are long and end with the operating system's reason.
    return text if len(text) <= 300 else f"{text[:100]} … {text[-200:]}"


def _quieten_orbax(record: standard_logging.LogRecord) -> bool:
    # Orbax raises its errors too, and the user then sees one Fault instead of pages of traceback.
    return "orbax" not in record.pathname or record.levelno == standard_logging.WARNING


def _crash_at(point: str) -> None:
    """Exits with code 137, as after SIGKILL, if SSLJAX_CRASH_AT names this point. For tests."""
    if os.environ.get("SSLJAX_CRASH_AT") == point:
        os._exit(137)
