"""From code for LLVM to functions that XLA calls on the CPU.

A handler of XLA's foreign function interface takes one pointer, to a frame of which it reads a few fields; their
places are part of the interface (`xla/ffi/api/c_api.h`, which `jax.ffi.include_dir()` holds).
"""

import ctypes
import functools

import jax
import llvmlite.binding as llvm
from llvmlite import ir

from . import kinds, planes
from .butterflies import BYTE, INDEX, LANE
from .planes import Plan

POINTER = BYTE.as_pointer()
# offsets [bytes] in XLA_FFI_CallFrame, XLA_FFI_Buffer, XLA_FFI_Extension_Base, XLA_FFI_Metadata
EXTENSION, ARGUMENTS, RESULTS = 8, 72, 112
DATA, RANK, SIDES = 24, 32, 40
EXTENSION_KIND, METADATA, MAJOR_VERSION, MINOR_VERSION = 8, 24, 24, 28
METADATA_EXTENSION = 1

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


@functools.cache
def lanes(single: bool) -> int:
    """Numbers in a vector register of this machine."""
    features = llvm.get_host_cpu_features()
    width = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    return width // (4 if single else 8)


def suits(plan: Plan) -> bool:
    """Whether there is a function for it on this machine."""
    return planes.suits(plan, lanes(plan.single))


def scratch(plan: Plan) -> int:
    """Numbers that its function wants as working space."""
    return planes.scratch(plan, lanes(plan.single))


@functools.cache
def target_of(plan: Plan) -> str:
    """The name under which XLA finds the function; its last result is working space of `scratch` numbers."""
    name = f"jaxptycho_{plan.kind}_{plan.n}x{plan.m}_{'f32' if plan.single else 'f64'}"
    engine = _compiled(plan)
    address = engine.get_function_address("handler")
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(_function_at(address)), platform="cpu")
    _alive.append(engine)
    return name


_alive = []  # machine code must not be freed while XLA may call it


def _function_at(address: int):
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)


def _compiled(plan: Plan):
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    _write_handler(module, plan, planes.write(module, plan, lanes(plan.single)))
    target = llvm.Target.from_triple(module.triple)
    # some processors are said to be faster with half their registers, which the code is not made for
    features = llvm.get_host_cpu_features().flatten() + (",-prefer-256-bit" if lanes(True) == 16 else "")
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


def _write_handler(module: ir.Module, plan: Plan, function: ir.Function) -> None:
    """The handler that calls `function`, or tells the version of the interface when it is asked for that."""
    handler = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), "handler")
    at = ir.IRBuilder(handler.append_basic_block("entry"))
    (frame,) = handler.args
    nothing = ir.Constant(POINTER, None)

    def field(base, offset, kind: ir.Type):
        return at.bitcast(at.gep(base, [INDEX(offset)]), kind.as_pointer())

    def read(base, offset, kind: ir.Type = POINTER):
        return at.load(field(base, offset, kind))

    def item(pointer, n):
        return read(pointer, 8 * n)

    extension = read(frame, EXTENSION)
    with at.if_then(at.icmp_unsigned("!=", extension, nothing)):
        asked = at.icmp_signed("==", read(extension, EXTENSION_KIND, LANE), LANE(METADATA_EXTENSION))
        with at.if_then(asked):
            metadata = read(extension, METADATA)
            at.store(LANE(0), field(metadata, MAJOR_VERSION, LANE))
            at.store(LANE(1), field(metadata, MINOR_VERSION, LANE))
            at.ret(nothing)
    arguments, results = read(frame, ARGUMENTS), read(frame, RESULTS)

    def data(buffer):
        return at.bitcast(read(buffer, DATA), plan.number.as_pointer())

    def count(buffer):
        """Planes in a buffer: the product of all its sides but two."""
        sides, last = read(buffer, SIDES), at.sub(read(buffer, RANK, INDEX), INDEX(2))
        before, head, inside, after = at.block, *(handler.append_basic_block(n) for n in ("head", "inside", "after"))
        at.branch(head)
        at.position_at_end(head)
        i, product = at.phi(INDEX), at.phi(INDEX)
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

    operands = [item(arguments, n) for n, _ in enumerate(kinds.OPERANDS[plan.kind])]
    results = [item(results, n) for n, _ in enumerate((*kinds.results(plan.kind), "scratch"))]
    at.call(function, [*map(count, operands), *map(data, operands), *map(data, results)])
    at.ret(nothing)
