"""Compilation of LLVM code to functions that XLA calls on the CPU.

A handler of XLA's foreign function interface receives one pointer to a frame, of which it reads a
few fields (`abi`).
"""

import contextlib
import ctypes
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import llvmlite.binding as llvm
from llvmlite import ir

from . import abi, planes
from .butterflies import BYTE, INDEX, LANE, number_of
from .planes import Planes
from .rows import Product, Spline

Plan = Planes | Product | Spline

POINTER = BYTE.as_pointer()

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


@functools.cache
def lanes(single: bool) -> int:
    """Numbers in a vector register of this machine."""
    features = llvm.get_host_cpu_features()
    width = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    return width // (4 if single else 8)


def description() -> str:
    """Description of the machine for which code is generated."""
    version = ".".join(map(str, llvm.llvm_version_info))
    width = f"{lanes(True)} float32 or {lanes(False)} float64 numbers a register"
    return f"LLVM {version} for {llvm.get_host_cpu_name()}, {width}"


def suits(plan: Planes) -> bool:
    """True if a plan has a function on this machine."""
    return planes.suits_planes(plan, lanes(plan.single))


def scratch(plan: Planes) -> int:
    """Numbers of working space that the function of a plan requires."""
    return planes.plane_scratch(plan, lanes(plan.single))


@functools.cache
def target_of(plan: Plan) -> str:
    """Name under which XLA finds the function.

    The last result of a function of planes is working space of `plane_scratch` numbers.
    """
    name = f"jaxptycho_{plan.name}_{'f32' if plan.single else 'f64'}"
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(_machine_code(plan)))
    engine.finalize_object()
    handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
        engine.get_function_address("handler")
    )
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
    _alive.append(engine)
    return name


_alive = []  # machine code must not be freed while XLA may call it


def _features() -> str:
    # LLVM prefers half-width registers on some processors, which the code does not support
    return llvm.get_host_cpu_features().flatten() + (
        ",-prefer-256-bit" if lanes(True) == 16 else ""
    )


def _machine():
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=_features(), opt=2, jit=True
    )


def _machine_code(plan: Plan) -> bytes:
    """Object file of a function, cached beside JAX's compiled programs if these are cached."""
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if folder is None or "://" in folder:
        return _compiled(plan)
    file = Path(folder) / f"jaxptycho-{_key(plan)}.o"
    try:
        return file.read_bytes()
    except OSError:
        code = _compiled(plan)
    with contextlib.suppress(OSError):  # no cache in a read-only folder
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_suffix(f".{os.getpid()}")
        own.write_bytes(code)
        own.replace(file)
    return code


def _key(plan: Plan) -> str:
    """Hash key of all that determines a function's machine code."""
    folder = Path(__file__).parent
    files = [*sorted(folder.glob("*.py")), folder.parent / "operations.py"]
    sources = [path.read_bytes() for path in files]
    where = llvm.get_process_triple(), llvm.get_host_cpu_name(), _features(), llvm.llvm_version_info
    return hashlib.sha256(b"".join([repr((plan, where)).encode(), *sources])).hexdigest()[:32]


def _compiled(plan: Plan) -> bytes:
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    _write_handler(module, plan, plan.write(module, lanes(plan.single)))
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return _machine().emit_object(parsed)


def _write_handler(module: ir.Module, plan: Plan, function: ir.Function) -> None:
    """Write the handler that calls `function`, or reports the version of the interface if asked."""
    handler = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), "handler")
    at = ir.IRBuilder(handler.append_basic_block("entry"))
    (frame,) = handler.args
    nothing = ir.Constant(POINTER, None)

    def field(base: Any, offset: Any, kind: ir.Type) -> Any:
        return at.bitcast(at.gep(base, [INDEX(offset)]), kind.as_pointer())

    def read(base: Any, offset: Any, kind: ir.Type = POINTER) -> Any:
        return at.load(field(base, offset, kind))

    def item(pointer: Any, n: Any) -> Any:
        return read(pointer, 8 * n)

    extension = read(frame, abi.EXTENSION)
    with at.if_then(at.icmp_unsigned("!=", extension, nothing)):
        asked = at.icmp_signed(
            "==", read(extension, abi.EXTENSION_KIND, LANE), LANE(abi.METADATA_EXTENSION)
        )
        with at.if_then(asked):
            metadata = read(extension, abi.METADATA)
            major, minor = map(LANE, abi.VERSION)
            at.store(major, field(metadata, abi.MAJOR_VERSION, LANE))
            at.store(minor, field(metadata, abi.MINOR_VERSION, LANE))
            at.ret(nothing)
    arguments = read(frame, abi.ARGUMENTS)
    results = read(frame, abi.RESULTS)

    def data(buffer: Any) -> Any:
        return at.bitcast(read(buffer, abi.DATA), number_of(plan.single).as_pointer())

    def count(buffer: Any) -> Any:
        """Number of planes in a buffer: the product of all its sides but two."""
        sides = read(buffer, abi.SIDES)
        last = at.sub(read(buffer, abi.RANK, INDEX), INDEX(2))
        before, head, inside, after = (
            at.block,
            *(handler.append_basic_block(n) for n in ("head", "inside", "after")),
        )
        at.branch(head)
        at.position_at_end(head)
        i = at.phi(INDEX)
        product = at.phi(INDEX)
        for value, start in ((i, 0), (product, 1)):
            value.add_incoming(INDEX(start), before)
        at.cbranch(at.icmp_signed("<", i, last), inside, after)
        at.position_at_end(inside)
        side = at.load(at.gep(at.bitcast(sides, INDEX.as_pointer()), [i]))
        product.add_incoming(at.mul(product, side), inside)
        i.add_incoming(at.add(i, INDEX(1)), inside)
        at.branch(head)
        at.position_at_end(after)
        return product

    operands = [item(arguments, n) for n in range(plan.operands)]
    results = [item(results, n) for n in range(plan.results)]
    counts = map(count, operands) if plan.counted else ()
    at.call(function, [*counts, *map(data, operands), *map(data, results)])
    at.ret(nothing)
