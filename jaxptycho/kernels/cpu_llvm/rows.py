"""Sparse matrices and spline filters that act on rows of an array, as code for LLVM.

Every row is contiguous and all its numbers are treated equally, several registers at a time, which
remain in registers during a sum or a recursion.
"""

from typing import Any, NamedTuple

from llvmlite import ir

from .butterflies import CONTRACT, INDEX, LANE, Code, Value, number_of

REGISTERS = 8  # registers of one row that are processed together


class Product(NamedTuple):
    """Product of a sparse matrix, `column` and `value` [group, term, row], with an array.

    The matrix has `terms` entries for each of `count` rows in each of `groups`; the array has
    `sources` rows. With `back` the transposed matrix is applied to an array of as many rows as
    the matrix; the result is replaced by its spline coefficients if it is `planes` (p, q).
    """

    groups: int
    terms: int
    count: int
    sources: int
    width: int  # numbers in a row of an array
    single: bool  # precision
    back: bool
    planes: tuple[int, int] | None = None

    counted = False
    operands = 3
    results = 1

    @property
    def name(self) -> str:
        sides = (
            self.groups,
            self.terms,
            self.count,
            self.sources,
            self.width,
            *(self.planes or ()),
        )
        return f"{'scatter' if self.back else 'gather'}_{'x'.join(map(str, sides))}"

    def write(self, module: ir.Module, lanes: int) -> ir.Function:
        """Function `(column, value, array, result)`."""
        code = _code(module, self, lanes)
        for pointer in code.function.args:
            pointer.add_attribute("noalias")
        columns, values, array, result = code.function.args
        columns = code.at.bitcast(columns, LANE.as_pointer())

        def start_of(group: Value, row: Value) -> Any:
            return code.times(code.sum(code.times(group, self.count), row), self.width)

        def entry(group: Value, term: Value, row: Value) -> Any:
            """Weight, and start of the other row."""
            place = code.sum(
                code.times(code.sum(code.times(group, self.terms), term), self.count), row
            )
            column = code.at.sext(code.at.load(code.moved(columns, place)), INDEX)
            return code.at.load(code.moved(values, place)), code.times(column, self.width)

        for part in _parts(code, self.width):

            def gather(group: Value, row: Value, part: Value = part) -> Any:
                def add(term: Value, sums: Value) -> Any:
                    weight, start = entry(group, term, row)
                    return part.sums(sums, weight, part.load(array, start))

                part.store(code.fold(self.terms, part.zeros(), add), result, start_of(group, row))

            def scatter(group: Value, row: Value, part: Value = part) -> Any:
                numbers = part.load(array, start_of(group, row))

                def add(term: Value) -> Any:
                    weight, start = entry(group, term, row)
                    part.store(part.sums(part.load(result, start), weight, numbers), result, start)

                code.loop(self.terms, add)

            def erase(row: Value, part: Value = part) -> Any:
                part.store(part.zeros(), result, code.times(row, self.width))

            if self.back:
                code.loop(self.sources, erase)
            one = scatter if self.back else gather
            code.loop(
                self.groups,
                lambda group, one=one: code.loop(self.count, lambda row: one(group, row)),
            )
        if self.planes:
            Spline(*self.planes, self.width, self.single).solve(code, result, result)
        code.at.ret_void()
        return code.function


class Spline(NamedTuple):
    """Coefficients of cubic B-splines along the first two axes p, q of an array, zero outside.

    The matrix with diagonals (1, 4, 1)/6, solved by elimination (Golub & Van Loan, Matrix
    Computations, § 4.3).
    """

    p: int
    q: int
    width: int  # numbers along the last axis
    single: bool  # precision

    counted = False
    operands = 1
    results = 1

    @property
    def name(self) -> str:
        return f"spline_{self.p}x{self.q}x{self.width}"

    def write(self, module: ir.Module, lanes: int) -> ir.Function:
        """Function `(array, result)`, which may be the same."""
        code = _code(module, self, lanes)
        self.solve(code, *code.function.args)
        code.at.ret_void()
        return code.function

    def solve(self, code: Code, array: Value, result: Value) -> None:
        """Write the coefficients of `array` to `result`."""
        pivots = [0.0]
        for _ in range(max(self.p, self.q)):
            pivots.append(1 / (4 - pivots[-1]))
        pivot, of_values = (code.table([f * x for x in pivots[1:]], code.number) for f in (1, 36))
        row = self.q * self.width

        def onward(part: Value, p: Value, first: Any = False) -> Any:
            """Forward elimination of a row of planes along both axes."""
            by_p = code.entry(pivot, p)

            def one(q: Value, before: Value) -> Any:
                place = code.sum(code.times(p, row), code.times(q, self.width))
                values = part.products(code.entry(of_values, q), part.load(array, place))
                along_q = part.sums(values, code.at.fneg(code.entry(pivot, q)), before)
                both = part.products(by_p, along_q)
                if not first:
                    both = part.sums(
                        both, code.at.fneg(by_p), part.load(result, code.sum(place, -row))
                    )
                part.store(both, result, place)
                return along_q

            code.fold(self.q, part.zeros(), one)

        def back(part: Value, p: Value, last: Any = False) -> Any:
            """Back substitution of a row of planes along both axes."""
            by_p = code.entry(pivot, p)

            def one(n: Value, behind: Value) -> Any:
                q = code.at.sub(INDEX(self.q - 1), n)
                place = code.sum(code.times(p, row), code.times(q, self.width))
                along_q = part.sums(
                    part.load(result, place), code.at.fneg(code.entry(pivot, q)), behind
                )
                both = along_q
                if not last:
                    both = part.sums(
                        both, code.at.fneg(by_p), part.load(result, code.sum(place, row))
                    )
                part.store(both, result, place)
                return along_q

            code.fold(self.q, part.zeros(), one)

        for part in _parts(
            code, self.width, REGISTERS // 2
        ):  # the previous row is also in registers
            onward(part, INDEX(0), first=True)
            code.loop(self.p - 1, lambda n, part=part: onward(part, code.sum(n, 1)))
            back(part, INDEX(self.p - 1), last=True)
            code.loop(
                self.p - 1, lambda n, part=part: back(part, code.at.sub(INDEX(self.p - 2), n))
            )


class _Part:
    """Registers of numbers of one row: their start positions in it, and their types."""

    def __init__(self, code: Code, places: list[tuple[int, ir.VectorType]]):
        self.code = code
        self.places = places

    def zeros(self) -> list[Value]:
        return [ir.Constant(kind, [0.0] * kind.count) for _, kind in self.places]

    def load(self, pointer: Value, start: Value) -> list[Value]:
        return [
            self.code.load(pointer, self.code.sum(start, place), kind)
            for place, kind in self.places
        ]

    def store(self, values: list[Value], pointer: Value, start: Value) -> None:
        for value, (place, _) in zip(values, self.places, strict=True):
            self.code.store(value, pointer, self.code.sum(start, place))

    def products(self, number: Value, values: list[Value]) -> list[Value]:
        return [
            self.code.at.fmul(self._everywhere(number, v.type), v, flags=CONTRACT) for v in values
        ]

    def sums(self, sums: list[Value], number: Value, values: list[Value]) -> list[Value]:
        """Sums plus `number` times the values."""
        more = self.products(number, values)
        return [self.code.at.fadd(s, m, flags=CONTRACT) for s, m in zip(sums, more, strict=True)]

    def _everywhere(self, number: Value, kind: ir.VectorType) -> Value:
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.code.at.insert_element(nothing, number, LANE(0))
        order = ir.Constant(ir.VectorType(LANE, kind.count), [0] * kind.count)
        return self.code.at.shuffle_vector(first, nothing, order)


def _parts(code: Code, width: int, registers: int = REGISTERS) -> list[_Part]:
    """Row of `width` numbers, cut into registers and parts; the last register may be narrower."""
    places = [
        (i, ir.VectorType(code.number, min(code.lanes, width - i)))
        for i in range(0, width, code.lanes)
    ]
    return [_Part(code, places[i : i + registers]) for i in range(0, len(places), registers)]


def _code(module: ir.Module, plan, lanes: int) -> Code:
    """Builder of a function with one pointer per operand and result of the plan."""
    pointers = [number_of(plan.single).as_pointer()] * (plan.operands + plan.results)
    code = Code(module, "rows", pointers, number_of(plan.single), lanes)
    return code
