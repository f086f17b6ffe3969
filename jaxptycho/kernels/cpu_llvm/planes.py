"""Fourier transforms of planes, and convolutions of planes, as code for LLVM.

Columns are transformed first, `lanes` of them at a time, directly from the complex array into a
plane of real and one of imaginary parts; then rows, transposed by `transposed` into strips. A
convolution multiplies each strip of rows by the transfer function and transforms it back before
it leaves the first-level cache; then columns are transformed back. A plane is read and written at
most three times, twice within the second-level cache. If a side is not a multiple of `lanes` the
last strip of an array overlaps the one before it; the working plane has additional rows instead,
so that rows are processed in place.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from ..operations import OPERANDS, results
from .butterflies import INDEX, Code, Value, frequencies, number_of, radices


class Planes(NamedTuple):
    """Plan of an operation of `operations.OPERANDS` on planes of n × m."""

    kind: str
    n: int
    m: int
    single: bool  # precision

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.n}x{self.m}"

    @property
    def counted(self) -> bool:
        """True if the function requires the number of planes of each operand."""
        return True

    @property
    def operands(self) -> int:
        return len(OPERANDS[self.kind])

    @property
    def results(self) -> int:
        """Number of results, including the working space."""
        return len(results(self.kind)) + 1

    def write(self, module: ir.Module, lanes: int) -> ir.Function:
        return write_plane(module, self, lanes)

    def rows(self, lanes: int) -> int:
        """Rows of the working plane, full strips."""
        return -(-self.n // lanes) * lanes

    def pitch(self, lanes: int) -> int:
        """Numbers from one row of the working plane to the next: an odd number of registers.

        A power of two would map a column to few sets of the cache.
        """
        return (-(-self.m // lanes) | 1) * lanes


def suits_planes(plan: Planes, lanes: int) -> bool:
    """True if code exists for a plan."""
    return min(plan.n, plan.m) >= lanes and None not in (radices(plan.n), radices(plan.m))


def plane_scratch(plan: Planes, lanes: int) -> int:
    """Numbers of working space: a strip, the working plane, and the transfer function in strips."""
    return 2 * (max(plan.n, plan.m) * lanes + plan.rows(lanes) * (plan.pitch(lanes) + plan.m))


def write_plane(module: ir.Module, plan: Planes, lanes: int) -> ir.Function:
    """Function `(counts of planes, operands, results, scratch)`, of counts and pointers."""
    number = number_of(plan.single).as_pointer()
    operands = OPERANDS[plan.kind]
    found = results(plan.kind)
    kinds = [INDEX] * len(operands) + [number] * (len(operands) + len(found) + 1)
    code = Code(module, "planes", kinds, number_of(plan.single), lanes)
    arguments = iter(code.function.args)
    counts, sources = ({name: next(arguments) for name in operands} for _ in range(2))
    targets = {name: next(arguments) for name in found}
    space = next(arguments)
    for pointer in (*sources.values(), *targets.values(), space):
        pointer.add_attribute("noalias")
    worker = _Worker(code, plan, space)

    def own(name: str, pointer: Value, p: Value) -> Any:
        """Pointer to the data of plane p."""
        n = p if counts.get(name, counts["wave"]) is counts["wave"] else code.at.sdiv(p, each(name))
        return code.moved(pointer, code.times(n, 2 * plan.n * plan.m))

    def each(name: str) -> Any:
        return code.at.sdiv(counts["wave"], counts[name])

    def of_plane(p: Value) -> Any:
        if "kernel" in operands:
            first = code.at.icmp_signed("==", code.at.srem(p, each("kernel")), INDEX(0))
            with code.at.if_then(first):
                worker.arrange(own("kernel", sources["kernel"], p))
        first = ir.IntType(1)(1)
        if "factor" in found:
            first = code.at.icmp_signed("==", code.at.srem(p, each("factor")), INDEX(0))
        worker.plane(
            {name: own(name, pointer, p) for name, pointer in sources.items()},
            {name: own(name, pointer, p) for name, pointer in targets.items()},
            first,
        )

    code.loop(counts["wave"], of_plane)
    code.at.ret_void()
    return code.function


class _Worker:
    def __init__(self, code: Code, plan: Planes, space: Value):
        self.code = code
        self.plan = plan
        self.lanes = code.lanes
        self.pitch = plan.pitch(code.lanes)
        longest = max(plan.n, plan.m) * code.lanes
        plane = plan.rows(code.lanes) * self.pitch
        places = (0, longest, 2 * longest, 2 * longest + plane, 2 * (longest + plane))
        *self.lines, real, imaginary, self.arranged = (code.moved(space, place) for place in places)
        self.work = real, imaginary
        self.strip = self._load_from_strip, self._store_in_strip

    def plane(self, sources: Value, targets: Value, first: Value) -> Any:
        """Operation on one plane; `first` is true for the first one that adds to a factor's
        gradient.
        """
        code = self.code
        plan = self.plan
        back = plan.kind in ("ifft2", "correlate", "step_back")
        sign = 1 if back else -1

        def load(y: Value, x: Value) -> Any:
            wave = code.load_pairs(sources["wave"], self._pair(y, x))
            if plan.kind not in ("step", "diffract"):
                return wave
            return code.product(wave, code.load_pairs(sources["factor"], self._pair(y, x)))

        def store(y: Value, x: Value, value: Value, fresh: Any) -> Any:
            place = self._pair(y, x)
            if "factor" in targets:
                entered, factor = (
                    code.load_pairs(sources[name], place) for name in ("entered", "factor")
                )
                nothing = code.constant(0.0)
                more = (
                    code.at.select(fresh, part, nothing) for part in code.product(value, entered)
                )
                erased = code.at.and_(fresh, code.everywhere(first))
                before = (
                    code.at.select(erased, nothing, part)
                    for part in code.load_pairs(targets["factor"], place)
                )
                code.store_pairs(code.added(tuple(before), tuple(more)), targets["factor"], place)
                value = code.product(value, factor)
            code.store_pairs(value, targets["wave"], place)

        if "kernel" not in sources:
            order = code.table(frequencies(plan.n), INDEX)
            self._columns(load, sign, lambda place: code.entry(order, place))
            self._rows(store, sign)
        else:
            self._columns(load, sign, lambda place: place)
            self._rows_there_and_back(sign)
            self._columns_back(store, -sign)

    def arrange(self, kernel: Value) -> Any:
        """Transfer function over n·m, in the order of strips of `_rows_there_and_back`."""
        code = self.code
        (n, m) = self.plan[1:3]
        lanes = self.lanes
        row_of, place_of = (
            code.table(t, INDEX) for t in (frequencies(n), np.argsort(frequencies(m)))
        )

        def strip(start: Value) -> Any:
            rows = [
                code.entry(row_of, code.atmost(code.sum(start, i), n - 1)) for i in range(lanes)
            ]
            factors = code.moved(self.arranged, code.times(start, 2 * m))

            def tile(x: Value) -> Any:
                values = [code.load_pairs(kernel, self._pair(row, x)) for row in rows]
                parts = [code.transposed(part) for part in zip(*values, strict=True)]
                for i, value in enumerate(zip(*parts, strict=True)):
                    place = code.times(code.entry(place_of, code.sum(x, i)), 2 * lanes)
                    for number, offset in zip(
                        code.scaled(value, 1 / (n * m)), (0, lanes), strict=True
                    ):
                        code.store(number, factors, code.sum(place, offset))

            self._along(m, tile)

        code.loop(n, strip, lanes)

    def _along(self, side: int, body):
        """Loop over `body(start)` for strips or tiles within a side of an array."""
        self.code.loop(
            side, lambda start: body(self.code.atmost(start, side - self.lanes)), self.lanes
        )

    def _fresh(self, start, x):
        """Mask of positions from x on that are at or after `start`; the others are done before."""
        columns = ir.Constant(ir.VectorType(INDEX, self.lanes), list(range(self.lanes)))
        return self.code.at.icmp_signed(
            ">=", columns, self.code.everywhere(self.code.at.sub(start, x))
        )

    def _pair(self, y, x):
        """Position of a complex number in an array."""
        return self.code.times(2, self.code.sum(self.code.times(y, self.plan.m), x))

    def _in_work(self, y, x):
        return self.code.sum(self.code.times(y, self.pitch), x)

    def _load_from_strip(self, place):
        return tuple(
            self.code.load(line, self.code.times(place, self.lanes)) for line in self.lines
        )

    def _store_in_strip(self, place, value):
        for number, line in zip(value, self.lines, strict=True):
            self.code.store(number, line, self.code.times(place, self.lanes))

    def _columns(self, load, sign, row_of):
        """Columns from `load(y, x)`, transformed into rows `row_of(place)` of the working plane."""
        code = self.code
        (n, m) = self.plan[1:3]

        def strip(x: Value) -> Any:
            def store(place: Value, value: Value) -> Any:
                pixel = self._in_work(row_of(place), x)
                for number, part in zip(value, self.work, strict=True):
                    code.store(number, part, pixel)

            code.transform(n, sign, lambda y: load(y, x), store, self.strip)

        self._along(m, strip)

    def _columns_back(self, store, sign):
        """Columns of the working plane, in the order of `_columns`, back to `store`.

        `store(y, x, value, fresh)`.
        """
        code = self.code
        (n, m) = self.plan[1:3]

        def strip(start: Value) -> Any:
            x = code.atmost(start, m - self.lanes)
            fresh = self._fresh(start, x)

            def load(place: Value) -> Any:
                return tuple(code.load(part, self._in_work(place, x)) for part in self.work)

            code.transform(
                n, sign, load, lambda y, value: store(y, x, value, fresh), self.strip, in_time=True
            )

        code.loop(m, strip, self.lanes)

    def _into_strip(self, y):
        """Rows of the working plane from y on."""
        code = self.code
        lanes = range(self.lanes)

        def tile(x: Value) -> Any:
            for part, line in zip(self.work, self.lines, strict=True):
                rows = [code.load(part, self._in_work(code.sum(y, i), x)) for i in lanes]
                for i, column in enumerate(code.transposed(rows)):
                    code.store(column, line, code.times(code.sum(x, i), self.lanes))

        self._along(self.plan.m, tile)

    def _tile(self, line, x, place_of):
        """Rows of a tile of the strip, from column x on."""
        places = [
            self.code.times(place_of(self.code.sum(x, i)), self.lanes) for i in range(self.lanes)
        ]
        return self.code.transposed([self.code.load(line, place) for place in places])

    def _rows(self, store, sign):
        """Rows of the working plane, transformed to `store(y, x, value, fresh)`."""
        code = self.code
        (n, m) = self.plan[1:3]
        place_of = code.table(np.argsort(frequencies(m)), INDEX)

        def strip(first: Any) -> Any:
            y = code.atmost(first, n - self.lanes)
            self._into_strip(y)
            code.transform(m, sign, *self.strip, self.strip)

            def tile(start: Value) -> Any:
                x = code.atmost(start, m - self.lanes)
                parts = [
                    self._tile(line, x, lambda column: code.entry(place_of, column))
                    for line in self.lines
                ]
                for i, value in enumerate(zip(*parts, strict=True)):
                    value = code.scaled(value, 1 / (n * m)) if sign > 0 else value
                    row = code.sum(y, i)
                    begun = code.everywhere(code.at.icmp_signed(">=", row, first))
                    store(row, x, value, code.at.and_(self._fresh(start, x), begun))

            code.loop(m, tile, self.lanes)

        code.loop(n, strip, self.lanes)

    def _rows_there_and_back(self, sign):
        """Rows of the working plane, transformed, multiplied by the kernel, transformed back."""
        code = self.code
        (n, m) = self.plan[1:3]

        def strip(y: Value) -> Any:
            self._into_strip(y)
            factors = code.moved(self.arranged, code.times(y, 2 * m))

            def times_kernel(place: Value, value: Value) -> Any:
                offset = code.times(place, 2 * self.lanes)
                factor = tuple(
                    code.load(factors, code.sum(offset, part)) for part in (0, self.lanes)
                )
                self._store_in_strip(place, code.product(value, factor))

            code.transform(m, sign, self._load_from_strip, times_kernel, self.strip)
            code.transform(m, -sign, *self.strip, self.strip, in_time=True)

            def tile(x: Value) -> Any:
                for part, line in zip(self.work, self.lines, strict=True):
                    for i, row in enumerate(self._tile(line, x, lambda column: column)):
                        code.store(row, part, self._in_work(code.sum(y, i), x))

            self._along(m, tile)

        code.loop(n, strip, self.lanes)
