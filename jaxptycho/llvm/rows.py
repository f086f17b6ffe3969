"""Sparse matrices and spline filters that act on rows of an array, as code for LLVM.

Every row is contiguous and all its numbers are treated alike, some registers of them at a time, which stay in
registers while a sum or a recursion runs.
"""

from typing import NamedTuple

from llvmlite import ir

from .butterflies import CONTRACT, INDEX, LANE, Code, Value, number_of

REGISTERS = 8  # of numbers of one row that are worked on together


class Product(NamedTuple):
    """A sparse matrix with `terms` entries for each of `count` rows, `column` and `value` [row, term], times an array
    of `sources` rows; or, `back`, its transpose times one of `count` rows."""

    terms: int
    count: int
    sources: int
    width: int  # numbers in a row of an array
    single: bool  # precision
    back: bool

    counted, operands, results = False, 3, 1

    @property
    def name(self) -> str:
        return f"{'scatter' if self.back else 'gather'}_{self.terms}x{self.count}x{self.sources}x{self.width}"

    def write(self, module: ir.Module, lanes: int) -> ir.Function:
        """The function `(column, value, array, result)`."""
        code = _code(module, self, lanes)
        for pointer in code.function.args:
            pointer.add_attribute("noalias")
        columns, values, array, result = code.function.args
        columns = code.at.bitcast(columns, LANE.as_pointer())

        def entry(term, row):
            """Weight, and where the other row begins."""
            place = code.sum(code.times(row, self.terms), term)
            column = code.at.sext(code.at.load(code.moved(columns, place)), INDEX)
            return code.at.load(code.moved(values, place)), code.times(column, self.width)

        for part in _parts(code, self.width):

            def gather(row, part=part):
                def add(term, sums):
                    weight, start = entry(term, row)
                    return part.sums(sums, weight, part.load(array, start))

                part.store(code.fold(self.terms, part.zeros(), add), result, code.times(row, self.width))

            def scatter(row, part=part):
                numbers = part.load(array, code.times(row, self.width))

                def add(term):
                    weight, start = entry(term, row)
                    part.store(part.sums(part.load(result, start), weight, numbers), result, start)

                code.loop(self.terms, add)

            def erase(row, part=part):
                part.store(part.zeros(), result, code.times(row, self.width))

            if self.back:
                code.loop(self.sources, erase)
            code.loop(self.count, scatter if self.back else gather)
        code.at.ret_void()
        return code.function


class Spline(NamedTuple):
    """The coefficients of cubic B-splines along the first two axes p, q of an array, zero outside: the matrix with
    (1, 4, 1)/6 about its diagonal, solved by elimination (Golub & Van Loan, Matrix Computations, § 4.3)."""

    p: int
    q: int
    width: int  # numbers along the last axis
    single: bool  # precision

    counted, operands, results = False, 1, 1

    @property
    def name(self) -> str:
        return f"spline_{self.p}x{self.q}x{self.width}"

    def write(self, module: ir.Module, lanes: int) -> ir.Function:
        """The function `(array, result)`, which may be the same."""
        code = _code(module, self, lanes)
        array, result = code.function.args
        pivots = [0.0]
        for _ in range(max(self.p, self.q)):
            pivots.append(1 / (4 - pivots[-1]))
        pivot = code.table(pivots[1:], code.number)

        def solve(part, source, first, count, apart):
            """One line of `count` rows, `apart` numbers from one to the next."""

            def onward(n, before):
                place, by = code.sum(first, code.times(n, apart)), code.entry(pivot, n)
                six = [code.at.fmul(x, ir.Constant(x.type, [6.0] * x.type.count)) for x in part.load(source, place)]
                own = part.sums(part.products(by, six), code.at.fneg(by), before)
                part.store(own, result, place)
                return own

            def back(n, behind):
                n = code.at.sub(INDEX(count - 1), n)
                place, by = code.sum(first, code.times(n, apart)), code.entry(pivot, n)
                own = part.sums(part.load(result, place), code.at.fneg(by), behind)
                part.store(own, result, place)
                return own

            code.fold(count, part.zeros(), onward)
            code.fold(count, part.zeros(), back)

        row = self.q * self.width
        for part in _parts(code, self.width):
            code.loop(self.q, lambda q, part=part: solve(part, array, code.times(q, self.width), self.p, row))
            code.loop(self.p, lambda p, part=part: solve(part, result, code.times(p, row), self.q, self.width))
        code.at.ret_void()
        return code.function


class _Part:
    """Some registers of numbers of one row: the places where they begin in it, and their types."""

    def __init__(self, code: Code, places: list[tuple[int, ir.VectorType]]):
        self.code, self.places = code, places

    def zeros(self) -> list[Value]:
        return [ir.Constant(kind, [0.0] * kind.count) for _, kind in self.places]

    def load(self, pointer: Value, start) -> list[Value]:
        return [self.code.load(pointer, self.code.sum(start, place), kind) for place, kind in self.places]

    def store(self, values: list[Value], pointer: Value, start) -> None:
        for value, (place, _) in zip(values, self.places, strict=True):
            self.code.store(value, pointer, self.code.sum(start, place))

    def products(self, number: Value, values: list[Value]) -> list[Value]:
        return [self.code.at.fmul(self._everywhere(number, v.type), v, flags=CONTRACT) for v in values]

    def sums(self, sums: list[Value], number: Value, values: list[Value]) -> list[Value]:
        """Each sum and `number` times its value."""
        more = self.products(number, values)
        return [self.code.at.fadd(s, m, flags=CONTRACT) for s, m in zip(sums, more, strict=True)]

    def _everywhere(self, number: Value, kind: ir.VectorType) -> Value:
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.code.at.insert_element(nothing, number, LANE(0))
        order = ir.Constant(ir.VectorType(LANE, kind.count), [0] * kind.count)
        return self.code.at.shuffle_vector(first, nothing, order)


def _parts(code: Code, width: int) -> list[_Part]:
    """A row of `width` numbers, cut into registers and those into parts; the last register may be narrower."""
    places = [(i, ir.VectorType(code.number, min(code.lanes, width - i))) for i in range(0, width, code.lanes)]
    return [_Part(code, places[i : i + REGISTERS]) for i in range(0, len(places), REGISTERS)]


def _code(module: ir.Module, plan, lanes: int) -> Code:
    """A function of as many pointers as the plan has operands and results."""
    pointers = [number_of(plan.single).as_pointer()] * (plan.operands + plan.results)
    code = Code(module, "rows", pointers, number_of(plan.single), lanes)
    return code
