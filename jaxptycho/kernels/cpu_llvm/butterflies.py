"""Fourier transforms of many lines at once, as code for LLVM.

A strip is `lanes` neighbouring lines, stored position by position: one vector register holds the
real parts of all lines at one position, another the imaginary parts. Arithmetic never crosses
lanes, and a strip stays in the first-level cache. Transforms are those of Cooley and Tukey with
mixed radices, in place: decimated in frequency they end in the order of `frequencies`, decimated
in time they begin in it, so that a pair of both with a product between them requires no sorting
(Van Loan, Computational Frameworks for the FFT, 1992, §§ 1.9 and 2.3).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

INDEX = ir.IntType(64)
LANE = ir.IntType(32)
BYTE = ir.IntType(8)
RADICES = {
    2: 1.5,
    3: 2.1,
    4: 1.9,
    5: 3.0,
    7: 5.0,
    8: 3.0,
    11: 10.0,
    13: 13.0,
}  # with their approximate cost
CONTRACT = ("contract",)  # a product and a sum may be one instruction

Value = Any  # of llvmlite, whose methods are not annotated
Complex = tuple[Value, ...]  # real and imaginary parts


@functools.cache
def radices(n: int) -> tuple[int, ...] | None:
    """Cheapest factors of n into `RADICES`, the largest first; None if there are none."""
    if n == 1:
        return ()
    found = [(r, rest) for r in RADICES if n % r == 0 if (rest := radices(n // r)) is not None]
    if not found:
        return None
    first, rest = min(found, key=lambda f: sum(RADICES[r] for r in (f[0], *f[1])))
    return tuple(sorted((first, *rest), reverse=True))


def frequencies(n: int) -> np.ndarray:
    """Frequency at each position of a line decimated in frequency."""
    order = np.zeros(1, int)
    for radix in reversed(radices(n) or ()):
        order = np.concatenate([k + radix * order for k in range(radix)])
    return order


def number_of(single: bool) -> ir.Type:
    """Type of a number in single or double precision."""
    return ir.FloatType() if single else ir.DoubleType()


class Code:
    """Builder of an LLVM function; `arguments` are pointers to numbers, and indices."""

    def __init__(
        self,
        module: ir.Module,
        name: str,
        arguments: Sequence[ir.Type],
        number: ir.Type,
        lanes: int,
    ):
        self.module = module
        self.number = number
        self.lanes = lanes
        self.vector = ir.VectorType(number, lanes)
        self.double = ir.VectorType(number, 2 * lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
        self.at: Any = ir.IRBuilder(self.function.append_basic_block("entry"))

    # indices and loops

    def index(self, value: Value) -> Value:
        return value if isinstance(value, ir.Value) else INDEX(int(value))

    def sum(self, *terms) -> Value:
        return functools.reduce(self.at.add, map(self.index, terms))

    def times(self, a: Value, b: Value) -> Value:
        return self.at.mul(self.index(a), self.index(b))

    def atmost(self, value: Value, limit: Value) -> Value:
        return self.at.select(
            self.at.icmp_signed("<", self.index(value), self.index(limit)), value, self.index(limit)
        )

    def loop(self, stop: Value, body: Callable[[Value], None], step: int = 1) -> None:
        """Emit `body(i)` for i = 0, step, … < stop."""
        self.fold(stop, [], lambda i, _: body(i) or [], step)

    def fold(
        self,
        stop: Value,
        values: Sequence[Value],
        body: Callable[[Value, list], list],
        step: int = 1,
    ) -> list[Value]:
        """Result of `values = body(i, values)` for i = 0, step, … < stop."""
        at = self.at
        before = self.at.block
        head, inside, after = (
            self.function.append_basic_block(n) for n in ("head", "inside", "after")
        )
        at.branch(head)
        at.position_at_end(head)
        held = [at.phi(value.type) for value in (INDEX(0), *values)]
        for phi, value in zip(held, (INDEX(0), *values), strict=True):
            phi.add_incoming(value, before)
        i, *carried = held
        at.cbranch(at.icmp_signed("<", i, self.index(stop)), inside, after)
        at.position_at_end(inside)
        changed = body(i, carried)
        for phi, value in zip(held, (at.add(i, INDEX(step)), *changed), strict=True):
            phi.add_incoming(value, at.block)
        at.branch(head)
        at.position_at_end(after)
        return carried

    # memory

    def table(self, values: Any, kind: ir.Type) -> Value:
        """Table of constants for `entry`."""
        array = ir.ArrayType(kind, len(values))
        name = self.module.get_unique_name("table")
        constant: Any = ir.GlobalVariable(self.module, array, name)
        constant.linkage = "internal"
        constant.global_constant = True
        constant.initializer = ir.Constant(
            array, [kind(float(v) if kind is self.number else int(v)) for v in values]
        )
        return constant

    def entry(self, table: Value, i: Value) -> Value:
        return self.at.load(self.at.gep(table, [INDEX(0), self.index(i)], inbounds=True))

    def moved(self, pointer: Value, offset: Value) -> Value:
        return self.at.gep(pointer, [self.index(offset)], inbounds=True)

    def load(self, pointer: Value, offset: Value, kind: ir.Type | None = None) -> Value:
        typed = self.at.bitcast(self.moved(pointer, offset), (kind or self.vector).as_pointer())
        return self.at.load(typed, align=self._alignment())

    def store(self, value: Value, pointer: Value, offset: Value) -> None:
        typed = self.at.bitcast(self.moved(pointer, offset), value.type.as_pointer())
        self.at.store(value, typed, align=self._alignment())

    def _alignment(self) -> int:
        return 4 if isinstance(self.number, ir.FloatType) else 8

    def load_pairs(self, pointer: Value, offset: Value) -> Complex:
        """Complex numbers of an array, real and imaginary parts in separate vectors."""
        both = self.load(pointer, offset, self.double)
        return self.mixed(both, both, range(0, 2 * self.lanes, 2)), self.mixed(
            both, both, range(1, 2 * self.lanes, 2)
        )

    def store_pairs(self, value: Complex, pointer: Value, offset: Value) -> None:
        order = [i // 2 + i % 2 * self.lanes for i in range(2 * self.lanes)]
        real, imaginary = value
        self.store(self.mixed(real, imaginary, order), pointer, offset)

    # vectors

    def mixed(self, a: Value, b: Value, order: Any) -> Value:
        """Elements of the concatenation of a and b in the given `order`."""
        order = list(order)
        return self.at.shuffle_vector(a, b, ir.Constant(ir.VectorType(LANE, len(order)), order))

    def everywhere(self, number: Value) -> Value:
        nothing = ir.Constant(ir.VectorType(number.type, self.lanes), ir.Undefined)
        return self.mixed(
            self.at.insert_element(nothing, number, LANE(0)), nothing, [0] * self.lanes
        )

    def constant(self, value: float) -> Value:
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def transposed(self, rows: Sequence[Value]) -> list[Value]:
        """Columns of a square of vectors, by exchange of blocks of 1, 2, 4 …"""
        rows = list(rows)
        size = 1
        lanes = range(self.lanes)
        while size < self.lanes:
            low = [lane if not lane & size else self.lanes + lane - size for lane in lanes]
            high = [lane + size if not lane & size else self.lanes + lane for lane in lanes]
            for i in lanes:
                if not i & size:
                    a, b = rows[i], rows[i + size]
                    rows[i], rows[i + size] = self.mixed(a, b, low), self.mixed(a, b, high)
            size *= 2
        return rows

    # complex arithmetic

    def added(self, x: Complex, y: Complex) -> Complex:
        return tuple(self.at.fadd(a, b, flags=CONTRACT) for a, b in zip(x, y, strict=True))

    def subtracted(self, x: Complex, y: Complex) -> Complex:
        return tuple(self.at.fsub(a, b, flags=CONTRACT) for a, b in zip(x, y, strict=True))

    def scaled(self, x: Complex, factor: float) -> Complex:
        return tuple(self.at.fmul(a, self.constant(factor), flags=CONTRACT) for a in x)

    def product(self, x: Complex, y: Complex) -> Complex:
        (a, b) = x
        (c, d) = y
        ac, bd, ad, bc = (
            self.at.fmul(p, q, flags=CONTRACT) for p, q in ((a, c), (b, d), (a, d), (b, c))
        )
        return self.at.fsub(ac, bd, flags=CONTRACT), self.at.fadd(ad, bc, flags=CONTRACT)

    def plus_minus_i(self, x: Complex, y: Complex) -> tuple[Complex, Complex]:
        """Pair x + iy and x − iy."""
        (a, b) = x
        (c, d) = y
        at = self.at
        plus = at.fsub(a, d, flags=CONTRACT), at.fadd(b, c, flags=CONTRACT)
        return plus, (at.fadd(a, d, flags=CONTRACT), at.fsub(b, c, flags=CONTRACT))

    # transforms

    def dft(self, x: Sequence[Complex], sign: int) -> list[Complex]:
        """Transform Σ_j x_j e^{sign·2πi jk/n} of few numbers."""
        n = len(x)
        if n == 1:
            return list(x)
        if n % 2:
            return self._odd(x, sign)
        even = self.dft(x[::2], sign)
        odd = self.dft(x[1::2], sign)
        low, high = [], []
        for k, (e, o) in enumerate(zip(even, odd, strict=True)):
            if 4 * k == n:  # the factor is ±i
                pair = self.plus_minus_i(e, o)[::sign]
            else:
                o = self._turned(o, sign * 2 * math.pi * k / n)
                pair = self.added(e, o), self.subtracted(e, o)
            low.append(pair[0])
            high.append(pair[1])
        return low + high

    def _odd(self, x, sign):
        """Transform of an odd number: cosines of x_j + x_{n−j}, sines of x_j − x_{n−j}."""
        n = len(x)
        half = range(1, len(x) // 2 + 1)
        sums = [self.added(x[j], x[n - j]) for j in half]
        differences = [self.subtracted(x[j], x[n - j]) for j in half]
        result = [functools.reduce(self.added, sums, x[0])] + [x[0]] * (n - 1)
        for k in half:
            angles = [2 * math.pi * (j * k % n) / n for j in half]
            terms = [self.scaled(s, math.cos(a)) for s, a in zip(sums, angles, strict=True)]
            sines = [
                self.scaled(d, sign * math.sin(a)) for d, a in zip(differences, angles, strict=True)
            ]
            result[k], result[n - k] = self.plus_minus_i(
                functools.reduce(self.added, terms, x[0]), functools.reduce(self.added, sines)
            )
        return result

    def _turned(self, x, angle):
        """Product x e^{i·angle}; for an eighth of a turn by two sums."""
        cosine, sine = math.cos(angle), math.sin(angle)
        if angle == 0:
            return x
        if not math.isclose(abs(cosine), abs(sine)):
            return self.product(x, (self.constant(cosine), self.constant(sine)))
        plus, minus = self.plus_minus_i(x, x)  # (1 + i) x and (1 − i) x
        return self.scaled(plus if cosine * sine > 0 else minus, cosine)

    def stage(
        self,
        n: int,
        length: int,
        radix: int,
        sign: int,
        load: Callable,
        store: Callable,
        in_time: bool,
    ) -> None:
        """Stage that splits blocks of `length` of a line of n into `radix` parts.

        By `load(position)` and `store(position, value)`.
        """
        apart = length // radix
        angles = sign * 2 * np.pi / length * np.outer(np.arange(apart), np.arange(1, radix))
        factors = self.table(np.stack([np.cos(angles), np.sin(angles)], -1).ravel(), self.number)

        def butterflies(j: Value) -> Any:
            first = self.times(j, 2 * (radix - 1))
            turns = [
                tuple(
                    self.everywhere(self.entry(factors, self.sum(first, 2 * k + part)))
                    for part in (0, 1)
                )
                for k in range(radix - 1)
            ]

            def turned(x: Value) -> Any:
                return x if apart == 1 else [x[0], *map(self.product, x[1:], turns)]

            def block(start: Value) -> Any:
                places = [self.sum(start, j, k * apart) for k in range(radix)]
                x = [load(place) for place in places]
                y = self.dft(turned(x), sign) if in_time else turned(self.dft(x, sign))
                for place, value in zip(places, y, strict=True):
                    store(place, value)

            self.loop(n, block, length)

        self.loop(apart, butterflies)

    def transform(
        self, n: int, sign: int, load: Callable, store: Callable, strip: Any, in_time: bool = False
    ) -> None:
        """Unscaled transform of a line of n from `load` via `strip` to `store`.

        `strip` is a pair of load and store. Decimated in frequency, or `in_time`.
        """
        lengths = []
        length = n
        for radix in radices(n) or ():
            lengths.append((length, radix))
            length //= radix
        if in_time:
            lengths.reverse()
        for i, (length, radix) in enumerate(lengths):
            first, last = i == 0, i == len(lengths) - 1
            self.stage(
                n,
                length,
                radix,
                sign,
                load if first else strip[0],
                store if last else strip[1],
                in_time,
            )
