"""Checkpoints: states of a run by number, written completely or not at all.

Orbax writes them while the computation continues, each process its part of every array, into a
folder that is renamed to its number once all is on the disk. Arrays are restored with the sharding
of a template, so a run may continue with another number of devices. Orbax detects missing parts but
not changed ones: every array has a checksum.
"""

import json
import shutil
import warnings
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .multihost import broadcast_str, first, require_seen, run_on_rank0

NUMBERS = (bool, int, float, complex, np.ndarray, np.generic, jax.Array)


class Checkpoints:
    """Those in `folder`, which all processes see; the last `kept` stay."""

    def __init__(self, folder: Path, kept: int = 2):
        self.folder = folder.resolve()
        self.kept = kept
        self._open: Any = None
        self._newest: int | None = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._open is not None:
            with _explained(self.folder):
                self._open.close()

    def numbers(self) -> list[int]:
        """Numbers of the checkpoints, newest first."""
        return sorted(
            (int(p.name) for p in self.folder.glob("*") if p.name.isdigit()), reverse=True
        )

    def save(self, number: int, tree: Any, about: Any = None) -> None:
        """Begins to write the arrays and numbers of `tree`, and `about` (JSON), unless `number` is
        there already.
        """
        from orbax.checkpoint import v1 as orbax  # 0.3 s, when the first one is due

        if number in (self._newest, *self.numbers()):
            return
        leaves = _named(tree)
        text = json.dumps({"about": about, "kinds": _kinds(leaves), "sums": _checksums(leaves)})
        with _explained(self.folder):
            if self._open is None:
                training: Any = orbax.training
                self._open = training.Checkpointer(
                    str(self.folder),
                    save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
                    preservation_policy=training.preservation_policies.LatestN(self.kept),
                    cleanup_tmp_directories=True,
                )
            self._open.save_async(
                number, leaves, custom_metadata={"text": text, "sum": zlib.crc32(text.encode())}
            )
        self._newest = number

    def clear(self) -> None:
        """Delete all checkpoints."""
        self.__exit__()  # once what is being written is there
        self._open = None
        self._newest = None
        run_on_rank0(lambda: [shutil.rmtree(self._given(number)) for number in self.numbers()])

    def last(self, template: Callable[[Any], Any], least: int = 0) -> tuple[Any, Any] | None:
        """Tree and `about` of the newest readable checkpoint from `least` on, or None.

        `template(about)` is a tree of the same structure, with the sharding of the result.
        Unreadable checkpoints are skipped with a warning, and renamed once an older one was read:
        one that only looks damaged, to a program that changed or ran out of memory, is not lost.
        Raises ValueError if none is readable.
        """
        passed: dict[int, str] = {}
        found = None
        number = self._older(None, least)
        while number is not None and found is None:
            require_seen(self._given(number))
            found, reason = self._read(number, template)
            if reason is not None:
                passed[number] = reason
                number = self._older(number, least)
        then = "" if found is None else "; the one before it is taken"
        for one, reason in passed.items():
            warnings.warn(
                f"checkpoint {one} in {self.folder} cannot be read ({reason}){then}", stacklevel=2
            )
        if found is None and (reason := next(iter(passed.values()), None) or self._given_up()):
            raise ValueError(
                f"no checkpoint in {self.folder} can be read ({reason}); begin again in another "
                "folder"
            )
        run_on_rank0(
            lambda: [self._given(one).rename(self._given(one, ".unreadable")) for one in passed]
        )
        return found

    def about(self) -> Any | None:
        """`about` of the newest checkpoint that this process can read, without its arrays; None
        without any.
        """
        for number in self.numbers():
            try:
                return self._looked_at(number)["about"]
            except Exception as error:  # whatever is met in a damaged folder
                warnings.warn(
                    f"checkpoint {number} in {self.folder} cannot be read ({_line(error)})",
                    stacklevel=2,
                )
        return None

    def _given(self, number: int, suffix: str = "") -> Path:
        return self.folder / f"{number}{suffix}"

    def _older(self, than: int | None, least: int) -> int | None:
        """The number of the next older checkpoint that the first process sees, the same in all
        processes.
        """
        older = (n for n in self.numbers() if n >= least and (than is None or n < than))
        found = broadcast_str(str(next(older, "none")) if first() else None)
        return None if found in (None, "none") else int(found)

    def _given_up(self) -> str | None:
        """Why no checkpoint is no fresh start: earlier ones were given up."""
        names = sorted(path.name for path in self.folder.glob("*.unreadable"))
        return broadcast_str(f"{names[-1]} is all that is left" if first() and names else None)

    def _read(
        self, number: int, template: Callable[[Any], Any]
    ) -> tuple[tuple[Any, Any] | None, str | None]:
        """Tree and `about`, or the reason why not: the same in all processes, which agree before
        orbax makes them wait for one another.
        """
        kept = None
        like = None
        why = None
        try:
            kept = self._looked_at(number)
            like = template(kept["about"])
            _require_same(_kinds(_named(like)), kept["kinds"], "is {1} in it, expected {0}")
        except Exception as error:  # whatever is met in a damaged folder
            why = _line(error)
        why = broadcast_str(why)
        if why is not None or kept is None:
            return None, why
        leaves = None
        try:
            leaves = self._loaded(number, _named(like), kept["sums"])
        except Exception as error:
            why = _line(error)
        why = broadcast_str(why)
        return (
            (None, why)
            if why is not None or leaves is None
            else ((_put_back(like, leaves), kept["about"]), None)
        )

    def _looked_at(self, number: int) -> dict[str, Any]:
        """Attributes of a checkpoint, after a check that all of its files can be read."""
        from orbax.checkpoint import v1 as orbax

        stored: Any = orbax.metadata(str(self._given(number))).custom_metadata
        if zlib.crc32(stored["text"].encode()) != stored["sum"]:
            raise ValueError("its attributes have changed")
        if first():
            _require_readable(self._given(number))
        return json.loads(stored["text"])

    def _loaded(self, number: int, wanted: dict[str, Any], sums: dict[str, int]) -> dict[str, Any]:
        from orbax.checkpoint import v1 as orbax

        leaves: Any = orbax.load(
            str(self._given(number)), {name: _wanted(leaf) for name, leaf in wanted.items()}
        )
        _require_same(_checksums(leaves), sums, "has changed")
        return leaves


def _require_readable(path: Path) -> None:
    """Raise ValueError if a file is missing or short.

    Orbax would detect it too, but leave its threads in an undefined state.
    """
    import tensorstore

    stored = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{path}/state/"}).result()
    for name in stored.list().result():
        stored.read(name).result()


def _require_same(one: dict, other: dict, what: str) -> None:
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            raise ValueError(f"{name} {what.format(one.get(name), other.get(name))}")


def _named(tree: Any) -> dict[str, Any]:
    """Arrays and numbers of a tree by their paths; arrays without elements are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        _name(path): _stored(leaf)
        for path, leaf in leaves
        if isinstance(leaf, NUMBERS) and np.size(leaf)
    }


def _put_back(like: Any, leaves: dict[str, Any]) -> Any:
    """The tree `like` with these leaves, each of its old type."""

    def back(path: Any, leaf: Any):
        stored = leaves.get(_name(path))
        if stored is None:
            return leaf
        if _is_key(leaf):
            return jax.random.wrap_key_data(stored, impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array | np.ndarray):
            return stored
        return stored[()] if isinstance(leaf, np.generic) else type(leaf)(stored[()])

    return jax.tree_util.tree_map_with_path(back, like)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _stored(leaf: Any) -> jax.Array | np.ndarray:
    if _is_jax(leaf):
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return np.asarray(leaf)


def _wanted(leaf: Any) -> Any:
    return (
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        if _is_jax(leaf)
        else leaf
    )


def _is_jax(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def _is_key(leaf: Any) -> bool:
    return _is_jax(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _kinds(leaves: dict[str, Any]) -> dict[str, str]:
    """Type and shape of every array in words."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def _checksums(leaves: dict[str, Any]) -> dict[str, int]:
    """Checksum of every array, which any change of a value changes, whatever the sharding."""
    sums = {
        name: _sum(leaf) if _is_jax(leaf) else zlib.crc32(leaf.tobytes())
        for name, leaf in leaves.items()
    }
    return {name: int(total) for name, total in jax.device_get(sums).items()}


@jax.jit
def _sum(values: jax.Array) -> jax.Array:
    """Σ (2i + 1) wᵢ modulo 2³² over the words w of the array.

    Integers, so that the order of the sum does not matter.
    """
    if jnp.iscomplexobj(values):
        values = jnp.stack([values.real, values.imag])
    if values.dtype == bool:
        values = values.astype(jnp.uint8)
    kind = {1: jnp.uint8, 2: jnp.uint16}.get(values.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(values, kind).astype(jnp.uint32)
    # no reshaping, which would gather arrays from many devices
    strides = np.cumprod((1, *words.shape[:0:-1]))[::-1]
    place = sum(
        jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride % 2**32)
        for axis, stride in enumerate(strides[: words.ndim])
    )
    return jnp.sum(words * (2 * place + np.uint32(1)), dtype=jnp.uint32)


@contextmanager
def _explained(folder: Path):
    """Raise any error of orbax as an OSError of one sentence."""
    try:
        yield
    except Exception as error:
        raise OSError(
            f"a checkpoint in {folder} could not be written ({_line(error)}), earlier ones are "
            "kept; make room and continue with `jaxptycho resume`"
        ) from error


def _line(error: BaseException) -> str:
    """Message of an error in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
