"""Fields of XLA's foreign function interface that a handler reads or writes, as offsets in bytes.

They are part of the interface (`xla/ffi/api/c_api.h`), which jaxlib provides as a header:
`require_layout` derives them from it and raises RuntimeError if they differ.
"""

import ctypes
import re
from pathlib import Path

import jax

HEADER = "xla/ffi/api/c_api.h"
EXTENSION = 8
ARGUMENTS = 72
RESULTS = 112
DATA = 24
RANK = 32
SIDES = 40
EXTENSION_KIND = 8
METADATA = 24
MAJOR_VERSION = 24
MINOR_VERSION = 28
METADATA_EXTENSION = 1
VERSION = 0, 1  # oldest version of the interface with these fields

FIELDS = {
    "XLA_FFI_CallFrame.extension_start": EXTENSION,
    "XLA_FFI_CallFrame.args.args": ARGUMENTS,
    "XLA_FFI_CallFrame.rets.rets": RESULTS,
    "XLA_FFI_Buffer.data": DATA,
    "XLA_FFI_Buffer.rank": RANK,
    "XLA_FFI_Buffer.dims": SIDES,
    "XLA_FFI_Extension_Base.type": EXTENSION_KIND,
    "XLA_FFI_Metadata_Extension.metadata": METADATA,
    "XLA_FFI_Metadata.api_version.major_version": MAJOR_VERSION,
    "XLA_FFI_Metadata.api_version.minor_version": MINOR_VERSION,
}
CONSTANTS = {
    "XLA_FFI_Extension_Metadata": METADATA_EXTENSION,
    "XLA_FFI_API_MAJOR": VERSION[0],
}

# since version 0.5
RENAMED = {"XLA_FFI_InternalExtension.type": "XLA_FFI_Extension_Base.type"}

C_TYPES = {
    "size_t": ctypes.c_size_t,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "int64_t": ctypes.c_int64,
}
STRUCT = re.compile(r"struct (\w+) \{([^{}]*)\}")
ENUM = re.compile(r"enum \{[^{}]*\} (\w+);")
ALIAS = re.compile(r"typedef (\w+) (\w+);")
PLAIN = re.compile(r"(?:const )?(\w+) (\w+)$")
POINTER = re.compile(r"\*+ ?(\w+)$|\(\*(\w+)\)\(|^_XLA_FFI_API_STRUCT_FIELD\((\w+)\)$")


def require_layout(header: str | None = None) -> None:
    """Raise RuntimeError unless a header (default: jaxlib's) has the fields at these offsets."""
    text = header_text() if header is None else header
    found = offsets(text) | constants(text)
    known = found | {old: found[new] for new, old in RENAMED.items() if new in found}
    expected = FIELDS | CONSTANTS
    moved = [
        f"{name} is {known.get(name, 'missing')} (expected {value})"
        for name, value in expected.items()
        if known.get(name) != value
    ]
    if moved:
        raise RuntimeError(
            f"the foreign functions of XLA in jax {jax.__version__} have another interface than "
            f"the CPU kernels: {'; '.join(moved)}; correct {__name__} or set JAXPTYCHO_KERNELS=jnp"
        )


def header_text() -> str:
    """The C header of the interface that belongs to the installed jaxlib."""
    return (Path(jax.ffi.include_dir()) / HEADER).read_text()


def constants(header: str) -> dict[str, int]:
    """Values of the `#define`s and enumerators of a header."""
    defined = re.findall(r"^#define (\w+) (\d+)$", header, re.M)
    enumerated = re.findall(r"^\s*(\w+) = (\d+),$", header, re.M)
    return {name: int(value) for name, value in defined + enumerated}


def offsets(header: str) -> dict[str, int]:
    """Offsets of the fields of a header's structs, nested ones by their path: `Struct.a.b`.

    Structs with fields of types unknown to C and to the header are omitted.
    """
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", header, flags=re.S)
    types = C_TYPES | {name: ctypes.c_int for name in ENUM.findall(code)}
    types |= {new: types[old] for old, new in ALIAS.findall(code) if old in types}
    found = {}
    for name, body in STRUCT.findall(code):
        lines = [" ".join(line.split()) for line in body.split(";")]
        fields = [_field(line, types) for line in lines if line]
        if None in fields:
            continue
        types[name] = struct = type(name, (ctypes.Structure,), {"_fields_": fields})
        found |= {f"{name}.{path}": offset for path, offset in _paths(struct)}
    return found


def _field(declaration: str, types: dict[str, type]) -> tuple[str, type] | None:
    """Name and type of a field, None for a type that is not known."""
    if pointer := POINTER.search(declaration):
        return next(filter(None, pointer.groups())), ctypes.c_void_p
    plain = PLAIN.match(declaration)
    return (plain[2], types[plain[1]]) if plain and plain[1] in types else None


def _paths(struct: type[ctypes.Structure], start: int = 0):
    """Path and offset of each field."""
    for name, kind in struct._fields_:  # pyright: ignore
        offset = start + getattr(struct, name).offset
        yield name, offset
        if issubclass(kind, ctypes.Structure):
            yield from ((f"{name}.{path}", there) for path, there in _paths(kind, offset))
