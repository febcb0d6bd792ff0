"""Vector instructions that a compiler does not find by itself, and distances in float64.

A micro-kernel multiplies 6 rows of bytes with strips of columns whose sums stay in registers. With
AVX-512 VNNI a strip is a panel of 64 columns; an instruction adds four products of an unsigned and
a signed byte to each sum. Columns are therefore packed as ``q + 127``; what this adds, 127 times
the sum of the row's digits, is what sums start from. AVX2 adds two such products up in int16, which
must hold them: its digits are those from -90 to 90, as ``2 * 180 * 90 < 2^15``.
"""

import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 16  # float32 numbers of a vector
SUMS = 32  # partial sums of a distance
GROUP = 6  # rows of the micro-kernel
PANEL = 64  # columns of the micro-kernel, as many as a mask has bits
DEPTH = 4  # dims whose products are added to a sum at once
_ALIGNED = 64  # bytes that panels start at a multiple of

_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_INTS = ir.VectorType(_INT, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_PART_PAIRS = 1024  # measured by a thread at a time
_LOOPS = (  # files with functions that numba compiles
    "baselines/kmeans_loops.py",
    "maps/loops.py",
    "neighbors/cleaning.py",
    "neighbors/exact/lists.py",
    "neighbors/exact/operand.py",
    "neighbors/exact/settling.py",
    "neighbors/exact/specials.py",
    "neighbors/exact/vectors.py",
    "neighbors/far_sets.py",
)


def _drop_stale_loops() -> None:
    """Delete cached machine code that is older than any file with compiled functions.

    numba compares a function with its own file alone, and would go on with what others were.
    """
    sources = [Path(__file__).parents[2] / name for name in _LOOPS]
    newest = max(source.stat().st_mtime for source in sources)
    for cache in {source.parent / "__pycache__" for source in sources}:
        for index in cache.glob("*.nbi") if os.access(cache, os.W_OK) else ():
            with suppress(FileNotFoundError):  # another process has deleted it
                if index.stat().st_mtime < newest:
                    index.unlink()


_drop_stale_loops()


class Instructions(NamedTuple):
    """How a processor multiplies bytes and adds the products up."""

    name: str
    needs: tuple[str, ...]  # features of the processor, as LLVM calls them
    multiply: str  # the intrinsic
    add_pairs: str | None  # another, of pairs of int16, where the first does not add to sums
    largest: int  # digit that no sum saturates with, with either sign
    lanes: int  # int32 sums of a vector
    strip: int  # columns whose sums are held at once


_VNNI = "llvm.x86.avx512.vpdpbusd"
_BY_RATE = (
    Instructions(
        "AVX-512 VNNI", ("avx512f", "avx512bw", "avx512vnni"), f"{_VNNI}.512", None, 127, 16, 64
    ),
    Instructions("AVX-VNNI", ("avx2", "avxvnni"), f"{_VNNI}.256", None, 127, 8, 16),
    Instructions("AVX-VNNI", ("avx512vl", "avx512vnni"), f"{_VNNI}.256", None, 127, 8, 16),
    Instructions(
        "AVX2", ("avx2",), "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", 90, 8, 16
    ),
)


def _target_features() -> set[str]:
    """What numba compiles for: the host, unless its settings say otherwise."""
    settings = numba.config.CPU_FEATURES
    if settings is None:
        settings = get_host_cpu_features()
    is_there = {setting.strip()[1:]: "+" in setting for setting in settings.split(",")}
    return {name for name in is_there if is_there[name]}


_FEATURES = _target_features()
_FOUND = [found for found in _BY_RATE if _FEATURES.issuperset(found.needs)]
INSTRUCTIONS = _FOUND[0] if _FOUND else _BY_RATE[0]
LARGEST, STRIP = INSTRUCTIONS.largest, INSTRUCTIONS.strip
_PACKS_AT_ONCE = "avx512f" in _FEATURES


@intrinsic
def prefetch(typingctx, array, offset):
    """Ask for the part of a flat array that holds an entry, to be read soon."""
    signature = types.void(array, types.int64)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.gep(data, [arguments[1]])
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address.type, number, number, number]),
            "llvm.prefetch.p0",
        )
        to_read, in_l2, data_cache = (ir.Constant(number, value) for value in (0, 2, 1))
        builder.call(function, [address, to_read, in_l2, data_cache])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _pack(typingctx, values, first, to_values, to_places, count):
    """Append those of 16 values that are not NaN, and their places; return their number.

    ``to_values[count:]`` and ``to_places[count:]`` need room for all 16. A loop with a branch
    costs ten times more. Values are moved as bits: where a processor has no instruction for it,
    LLVM 22 stops on floats that are to be packed before zeros.
    """
    signature = types.int64(values, types.int64, to_values, to_places, types.int64)

    def generate(context, builder, signature, arguments):
        floats = ir.VectorType(ir.FloatType(), LANES)
        integers = ir.VectorType(ir.IntType(32), LANES)
        mask_type = ir.VectorType(ir.IntType(1), LANES)
        first, count = arguments[1], arguments[4]

        def pointer(position, offset, vector):
            array = context.make_array(signature.args[position])
            data = array(context, builder, arguments[position]).data
            return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

        def pack(vector, mask):
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(integers, [integers, mask_type, integers]),
                f"llvm.experimental.vector.compress.v{LANES}i32",
            )
            # Zeros for what is left over: undefined, it would be packed in memory, which takes
            # 50 times as long on AMD processors.
            return builder.call(function, [vector, mask, ir.Constant(integers, None)])

        loaded = builder.load(pointer(0, first, floats), align=4)
        is_number = builder.fcmp_ordered("==", loaded, loaded)
        start = builder.insert_element(
            ir.Constant(integers, ir.Undefined),
            builder.trunc(first, ir.IntType(32)),
            ir.Constant(ir.IntType(32), 0),
        )
        starts = builder.shuffle_vector(
            start, ir.Constant(integers, ir.Undefined), ir.Constant(integers, [0] * LANES)
        )
        places = builder.add(starts, ir.Constant(integers, list(range(LANES))))
        bits = builder.bitcast(loaded, integers)
        mask = builder.bitcast(is_number, ir.IntType(LANES))
        with _unless_empty(builder, mask):
            builder.store(pack(bits, is_number), pointer(2, count, integers), align=4)
            builder.store(pack(places, is_number), pointer(3, count, integers), align=4)
        return builder.zext(builder.ctpop(mask), ir.IntType(64))

    return signature, generate


def _unless_empty(builder, mask):
    """Skip what follows where no bit is set, if packing takes more than a branch that is missed.

    With AVX-512 it is two instructions, without it about 25 ns.
    """
    if _PACKS_AT_ONCE:
        return nullcontext()
    return builder.if_then(builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0)))


@njit(cache=True)
def pack(values, to_values, to_places):
    """Gather the values that are not NaN, and their places; return their number.

    Args:
        values: Shape ``(c,)``, float32, ``c`` a multiple of 16.
        to_values: Shape ``(c + 16,)``, float32, to be filled.
        to_places: Shape ``(c + 16,)``, int32, to be filled.
    """
    count = 0
    for first in range(0, len(values), LANES):
        count += _pack(values, first, to_values, to_places, count)
    return count


@njit(parallel=True, cache=True)
def measure_pairs(features, left, others, right):
    """Squared distances ``(p,)`` of pairs of rows, as :func:`squared_distance` defines them.

    Args:
        features: Shape ``(n, d)``, float32, C-contiguous.
        left: Shape ``(p,)``, int64, rows of these.
        others: Shape ``(m, d)``, the same or others.
        right: Shape ``(p,)``, int64, rows of those.
    """
    squared = np.empty(len(left))
    n_parts = -(-len(left) // _PART_PAIRS)
    for part in prange(n_parts):
        sums = np.empty(SUMS)
        for pair in range(part * _PART_PAIRS, min((part + 1) * _PART_PAIRS, len(left))):
            squared[pair] = squared_distance(features[left[pair]], others[right[pair]], sums)
    return squared


@njit(parallel=True, cache=True)
def measure_row(features, row):
    """Squared distances ``(n,)`` of all images to one, -1 to itself, as :func:`squared_distance`.

    Args:
        features: Shape ``(n, d)``, float32, C-contiguous.
        row: The image.
    """
    squared = np.empty(len(features))
    n_parts = -(-len(features) // _PART_PAIRS)
    for part in prange(n_parts):
        sums = np.empty(SUMS)
        for image in range(part * _PART_PAIRS, min((part + 1) * _PART_PAIRS, len(features))):
            squared[image] = squared_distance(features[row], features[image], sums)
    squared[row] = -1.0
    return squared


@njit(cache=True)
def squared_distance(left, right, sums):
    """The float64 sum of squared differences, added in an order that ``d`` alone decides.

    Dim ``t`` goes to partial sum ``t mod 32``, in ascending order; the sums are folded in halves.

    Args:
        left: Shape ``(d,)``, float32.
        right: Shape ``(d,)``, float32.
        sums: Shape ``(32,)``, float64, room for the sums.
    """
    whole = len(left) // SUMS * SUMS
    for lane in range(SUMS):
        sums[lane] = 0.0
    for start in range(0, whole, SUMS):
        for lane in range(SUMS):
            difference = np.float64(left[start + lane]) - np.float64(right[start + lane])
            sums[lane] += difference * difference
    for dim in range(whole, len(left)):
        difference = np.float64(left[dim]) - np.float64(right[dim])
        sums[dim - whole] += difference * difference
    half = SUMS // 2
    while half > 0:
        for lane in range(half):
            sums[lane] += sums[lane + half]
        half //= 2
    return sums[0]


def has_microkernel() -> bool:
    """Whether the processor that is compiled for has instructions that are worth it."""
    return bool(_FOUND)


class PackedRows(NamedTuple):
    """Digits of ``b`` rows in groups of 6, padded with zeros."""

    digits: NDArray[np.int8]  # (b', d'), flat: (b' / 6, d' / 4, 6, 4)
    starts: NDArray[np.int32]  # (b',), what the sums of each row start from
    fine_starts: NDArray[np.int32]  # (b',), the same with fine digits too
    places: NDArray[np.int64]  # (b,), in the operand


def pack_panels(digits: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack columns as the micro-kernel reads them.

    Args:
        digits: Shape ``(n, d)``.

    Returns:
        Flat, of shape ``(n / strip, d / 4, strip, 4)``, ``n`` rounded up to a multiple of 64 and
        ``d`` to one of 4; where it starts is a multiple of 64 bytes.
    """
    n_columns, n_dims = digits.shape
    n_strips, n_steps = -(-n_columns // PANEL) * (PANEL // STRIP), -(-n_dims // DEPTH)
    size = n_strips * n_steps * STRIP * DEPTH
    room = np.empty(size + _ALIGNED, dtype=np.uint8)
    start = -room.ctypes.data % _ALIGNED
    panels = room[start : start + size]
    _fill_strips(digits, panels.reshape(n_strips, n_steps, STRIP, DEPTH))
    return panels


@njit(nogil=True, cache=True)
def _fill_strips(digits, strips):
    for strip in range(len(strips)):
        strips[strip] = LARGEST
        first = strip * STRIP
        for column in range(first, min(first + STRIP, len(digits))):
            for dim in range(digits.shape[1]):
                value = digits[column, dim] + LARGEST
                strips[strip, dim // DEPTH, column - first, dim % DEPTH] = value


@njit(nogil=True, cache=True)
def pack_rows(digits: NDArray[np.int8], n_dims: int, rows: NDArray[np.int64]) -> PackedRows:
    """Pack some rows as the micro-kernel reads them.

    Args:
        digits: Shape ``(n, d)``, or ``(n, 2 d)`` with fine ones.
        n_dims: ``d``.
        rows: Shape ``(b,)``.
    """
    n_groups, n_steps = -(-len(rows) // GROUP), -(-n_dims // DEPTH)
    packed = np.zeros((n_groups, n_steps, GROUP, DEPTH), dtype=np.int8)
    starts, fine_starts = np.zeros((2, n_groups * GROUP), dtype=np.int32)
    for r in range(len(rows)):
        total, row = 0, rows[r]
        for dim in range(n_dims):
            packed[r // GROUP, dim // DEPTH, r % GROUP, dim % DEPTH] = digits[row, dim]
            total += digits[row, dim]
        starts[r] = -LARGEST * total
        for dim in range(n_dims, digits.shape[1]):
            total += digits[row, dim]
        fine_starts[r] = -LARGEST * total
    return PackedRows(packed.reshape(packed.size), starts, fine_starts, rows)


class _Writer:
    """Writes the vector code of an intrinsic."""

    def __init__(self, context, builder, signature, arguments) -> None:
        self._context, self.builder = context, builder
        self._types, self._arguments = signature.args, arguments

    def pointer(self, argument: int, offset, kind, member: int | None = None):
        """Where an entry of a flat array is, or of an array that is a member of a tuple."""
        array_type, value = self._types[argument], self._arguments[argument]
        if member is not None:
            array_type = array_type.types[member]
            value = self.builder.extract_value(value, member)
        data = self._context.make_array(array_type)(self._context, self.builder, value).data
        return self.builder.bitcast(self.builder.gep(data, [offset]), kind.as_pointer())

    def load(self, argument: int, offset, kind, member: int | None = None):
        """Vectors need not be aligned."""
        return self.builder.load(self.pointer(argument, offset, kind, member), align=4)

    def store(self, value, argument: int, offset) -> None:
        self.builder.store(value, self.pointer(argument, offset, value.type), align=4)

    def splat(self, value, lanes: int = LANES):
        """The same number in all lanes."""
        none = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        one = self.builder.insert_element(none, value, ir.Constant(_INT, 0))
        places = ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes)
        return self.builder.shuffle_vector(one, none, places)

    def splat_from(self, argument: int, offset, member: int | None = None):
        return self.splat(self.load(argument, offset, ir.FloatType(), member))

    def shift(self, offset, number: int):
        return self.builder.add(offset, ir.Constant(_LONG, number))

    def bits(self, masks):
        """Four masks ``<16 x i1>`` as one number."""
        result = ir.Constant(_LONG, 0)
        for place, mask in enumerate(masks):
            part = self.builder.zext(self.builder.bitcast(mask, ir.IntType(LANES)), _LONG)
            shift = ir.Constant(_LONG, place * LANES)
            result = self.builder.or_(result, self.builder.shl(part, shift))
        return result


class _Sums:
    """Writes sums of products of unsigned and signed bytes, in vectors of int32."""

    def __init__(self, builder) -> None:
        self._builder, lanes = builder, INSTRUCTIONS.lanes
        self.kind = ir.VectorType(_INT, lanes)
        self.digits = ir.VectorType(_BYTE, DEPTH * lanes)
        self._pairs = ir.VectorType(ir.IntType(16), 2 * lanes)

    def add(self, sums, columns, rows):
        """Add products of bytes, four to each sum.

        Args:
            sums: Of :attr:`kind`.
            columns: Unsigned, of :attr:`digits`.
            rows: Signed, of :attr:`digits`.
        """
        if INSTRUCTIONS.add_pairs is None:
            operands = [self._builder.bitcast(digits, self.kind) for digits in (columns, rows)]
            return self._call(INSTRUCTIONS.multiply, self.kind, sums, *operands)
        pairs = self._call(INSTRUCTIONS.multiply, self._pairs, columns, rows)
        ones = ir.Constant(self._pairs, [1] * self._pairs.count)
        return self._builder.add(sums, self._call(INSTRUCTIONS.add_pairs, self.kind, pairs, ones))

    def fold(self, sums):
        """The sum of all lanes."""
        return self._call(f"llvm.vector.reduce.add.v{self.kind.count}i32", _INT, sums)

    def _call(self, name: str, kind, *operands):
        function = cgutils.get_or_insert_function(
            self._builder.module,
            ir.FunctionType(kind, [operand.type for operand in operands]),
            name,
        )
        return self._builder.call(function, operands)


@intrinsic
def multiply(typingctx, digits, first, panels, first_byte, n_steps, starts, row, products):
    """Products ``(6, 64)`` of a group of rows and a panel of columns, exact.

    Args:
        digits: Of :class:`PackedRows`; the group starts at ``first``.
        panels: Of :func:`pack_panels`; the panel starts at ``first_byte``.
        n_steps: Instructions to the depth.
        starts: Of :class:`PackedRows`; the group's start at ``row``.
        products: Flat, int32, to be filled.
    """
    long = types.int64
    signature = types.void(digits, long, panels, long, long, starts, long, products)

    def generate(context, builder, signature, arguments):
        writer, products = _Writer(context, builder, signature, arguments), _Sums(builder)
        _, first, _, first_byte, n_steps, _, row, _ = arguments
        left = writer.pointer(0, first, _INT)
        lanes, n_vectors = INSTRUCTIONS.lanes, STRIP // INSTRUCTIONS.lanes
        for strip in range(0, PANEL, STRIP):
            offset = builder.mul(n_steps, ir.Constant(_LONG, strip * DEPTH))
            right = writer.pointer(2, builder.add(first_byte, offset), products.digits)
            before = builder.block
            sums = []
            for r in range(GROUP):
                start = writer.splat(writer.load(5, writer.shift(row, r), _INT), lanes)
                sums += [start] * n_vectors
            loop, end = builder.append_basic_block("depth"), builder.append_basic_block("end")
            builder.branch(loop)
            builder.position_at_end(loop)
            step = builder.phi(_LONG)
            step.add_incoming(ir.Constant(_LONG, 0), before)
            phis = [builder.phi(products.kind) for _ in sums]
            for phi, start in zip(phis, sums, strict=True):
                phi.add_incoming(start, before)
            columns = []
            for vector in range(n_vectors):
                place = writer.shift(builder.mul(step, ir.Constant(_LONG, n_vectors)), vector)
                columns.append(builder.load(builder.gep(right, [place]), align=DEPTH * lanes))
            sums = []
            for r in range(GROUP):
                place = writer.shift(builder.mul(step, ir.Constant(_LONG, GROUP)), r)
                digits = writer.splat(builder.load(builder.gep(left, [place]), align=1), lanes)
                digits = builder.bitcast(digits, products.digits)
                for vector in range(n_vectors):
                    phi = phis[r * n_vectors + vector]
                    sums.append(products.add(phi, columns[vector], digits))
            following = writer.shift(step, 1)
            step.add_incoming(following, loop)
            for phi, value in zip(phis, sums, strict=True):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, n_steps), loop, end)
            builder.position_at_end(end)
            for number, value in enumerate(sums):
                r, vector = divmod(number, n_vectors)
                writer.store(value, 7, ir.Constant(_LONG, r * PANEL + strip + vector * lanes))
        return context.get_dummy_value()

    return signature, generate


_SCALES, _HALF_NORMS, _TOPS, _NORMS, _ERRORS = range(5)  # members of Side


class _Pairs:
    """The products of one row with 16 columns and how far off they may be, as in a scan."""

    def __init__(self, writer, first, rows: int, row, columns: int, column) -> None:
        self.writer, self.column = writer, column
        self._rows, self._row, self._columns = rows, row, columns
        builder = writer.builder
        digits = builder.sitofp(writer.load(0, first, _INTS), _FLOATS)
        scales = builder.fmul(self.of_row(_SCALES), self.of_columns(_SCALES))
        self.products = builder.fmul(scales, digits)
        self.spreads = builder.fadd(
            builder.fmul(self.of_row(_ERRORS), self.of_columns(_NORMS)),
            builder.fmul(self.of_row(_NORMS), self.of_columns(_ERRORS)),
        )

    def of_columns(self, member: int):
        return self.writer.load(self._columns, self.column, _FLOATS, member)

    def of_row(self, member: int):
        return self.writer.splat_from(self._rows, self._row, member)

    def lower(self, half_norms):
        builder = self.writer.builder
        return builder.fsub(builder.fsub(half_norms, self.products), self.spreads)

    def upper(self, tops):
        builder = self.writer.builder
        return builder.fadd(builder.fsub(tops, self.products), self.spreads)


@intrinsic
def near_masks(
    typingctx,
    products,
    first,
    rows,
    row,
    columns,
    column,
    cuts,
    row_cut,
    column_cuts,
    column_cut,
    bounds,
):
    """Which of 64 columns may be near a row, and to which the row may be near, as bits.

    Args:
        products: Of :func:`multiply`; those of the row start at ``first``.
        rows: A Side, in which the row is ``row``.
        columns: A Side, in which the columns start at ``column``.
        cuts: Flat; that of the row is at ``row_cut``.
        column_cuts: Flat; those of the columns start at ``column_cut``.
        bounds: Flat, ``(2 * 64,)``, to be filled with lower bounds of x: of the row, then of the
            columns.
    """
    long, bits = types.int64, types.uint64
    signature = types.UniTuple(bits, 2)(
        products, long, rows, long, columns, long, cuts, long, column_cuts, long, bounds
    )

    def generate(context, builder, signature, arguments):
        writer = _Writer(context, builder, signature, arguments)
        _, first, _, row, _, column, _, row_cut, _, column_cut, _ = arguments
        cut = writer.splat_from(6, row_cut)
        found: list[list] = [[], []]
        for offset in range(0, PANEL, LANES):
            start = writer.shift(first, offset)
            pairs = _Pairs(writer, start, 2, row, 4, writer.shift(column, offset))
            of_row = pairs.lower(pairs.of_columns(_HALF_NORMS))
            of_columns = pairs.lower(pairs.of_row(_HALF_NORMS))
            own_cuts = writer.load(8, writer.shift(column_cut, offset), _FLOATS)
            found[0].append(builder.fcmp_ordered("<=", of_row, cut))
            found[1].append(builder.fcmp_ordered("<=", of_columns, own_cuts))
            writer.store(of_row, 10, ir.Constant(_LONG, offset))
            writer.store(of_columns, 10, ir.Constant(_LONG, PANEL + offset))
        masks = [writer.bits(masks) for masks in found]
        return context.make_tuple(builder, signature.return_type, masks)

    return signature, generate


def _far_masks(*, is_bound: bool):
    """The intrinsic of far windows: of upper bounds, or of estimates that are within bounds."""

    @intrinsic
    def masks(
        typingctx,
        products,
        first,
        rows,
        row,
        columns,
        column,
        lows,
        highs,
        row_end,
        column_lows,
        column_highs,
        column_below,
        column_end,
        values,
    ):
        long, bits = types.int64, types.uint64
        signature = types.UniTuple(bits, 3)(
            *(products, long, rows, long, columns, long, lows, highs, long),
            *(column_lows, column_highs, column_below, long, values),
        )

        def generate(context, builder, signature, arguments):
            writer = _Writer(context, builder, signature, arguments)
            _, first, _, row, _, column, _, _, row_end, _, _, _, column_end, _ = arguments
            low, high = writer.splat_from(6, row_end), writer.splat_from(7, row_end)
            found: list[list] = [[], [], []]

            def compare(pairs, member, low, high, side, offset):
                """Mask of what is below; mark what is between the ends, or may be."""
                half_norms, tops = member(_HALF_NORMS), member(_TOPS)
                upper = pairs.upper(tops)
                least = upper if is_bound else pairs.lower(half_norms)
                inside = builder.and_(
                    builder.fcmp_ordered(">=", upper, low), builder.fcmp_ordered("<=", least, high)
                )
                found[1 + side].append(inside)
                writer.store(upper, 13, ir.Constant(_LONG, side * PANEL + offset))
                return builder.fcmp_ordered("<", upper, low)

            for offset in range(0, PANEL, LANES):
                start = writer.shift(first, offset)
                pairs = _Pairs(writer, start, 2, row, 4, writer.shift(column, offset))
                found[0].append(compare(pairs, pairs.of_columns, low, high, 0, offset))
                end = writer.shift(column_end, offset)
                own_low, own_high = (writer.load(number, end, _FLOATS) for number in (9, 10))
                under = compare(pairs, pairs.of_row, own_low, own_high, 1, offset)
                counts = builder.add(writer.load(11, end, _INTS), builder.zext(under, _INTS))
                writer.store(counts, 11, end)
            result = [writer.bits(masks) for masks in found]
            return context.make_tuple(builder, signature.return_type, result)

        return signature, generate

    return masks


# Which of 64 columns are below the window of a row, which are about its far rank, and about whose
# the row is, as bits. What is below the windows of the columns is counted there.
#
# Arguments: as of near_masks up to ``column``; then the ends of the windows, flat, that of the row
# at ``row_end``; those of the columns and the counts below them, flat, from ``column_end`` on; and
# room for the upper bounds, ``(2 * 64,)``, of the row, then of the columns.
#
# With bounds the windows are of upper bounds of x. Without, estimates are between ``x`` less and
# more the spread: marked are those that may lie in the window, the others lie below or above.
bounded_masks = _far_masks(is_bound=True)
doubtful_masks = _far_masks(is_bound=False)


@intrinsic
def fine_product(typingctx, digits, left, right, n_dims, start):
    """Coarse digits of one image with fine ones of another, and the other way round, added up.

    Args:
        digits: Flat, int8; of each image the coarse digits, then the fine ones.
        left: Where the one's start.
        right: Where the other's start.
        n_dims: Digits of either kind.
        start: -127 or -90 times the sum of the one's digits.
    """
    long = types.int64
    signature = types.int32(digits, long, long, long, types.int32)

    def generate(context, builder, signature, arguments):
        writer = _Writer(context, builder, signature, arguments)
        _, left, right, n_dims, start = arguments
        products, size = _Sums(builder), DEPTH * INSTRUCTIONS.lanes
        digits, bits = products.digits, ir.VectorType(ir.IntType(1), size)
        pointer = writer.pointer(0, left, digits).type
        load = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(digits, [pointer, _INT, bits, digits]),
            f"llvm.masked.load.v{size}i8.p0",
        )
        zeros, none = ir.Constant(digits, None), ir.Constant(products.kind, None)
        offsets = ir.Constant(digits, [LARGEST] * size)

        def add(sums, dim, mask=None):
            """Both sums and the products from a dim on, of those dims that a mask has."""

            def read(image, of_fine):
                place = builder.add(image, dim)
                place = builder.add(place, n_dims) if of_fine else place
                address = writer.pointer(0, place, digits)
                if mask is None:
                    return builder.load(address, align=1)
                return builder.call(load, [address, ir.Constant(_INT, 1), mask, zeros])

            result = []
            for number, value in enumerate(sums):
                other, own = read(right, number == 0), read(left, number == 1)
                result.append(products.add(value, builder.add(other, offsets), own))
            return result

        before = builder.block
        head, loop = builder.append_basic_block("head"), builder.append_basic_block("dims")
        end = builder.append_basic_block("end")
        builder.branch(head)
        builder.position_at_end(head)
        dim = builder.phi(_LONG)
        dim.add_incoming(ir.Constant(_LONG, 0), before)
        phis = [builder.phi(products.kind) for _ in range(2)]
        following = writer.shift(dim, size)
        builder.cbranch(builder.icmp_signed("<=", following, n_dims), loop, end)
        builder.position_at_end(loop)
        dim.add_incoming(following, loop)
        for phi, value in zip(phis, add(phis, dim), strict=True):
            phi.add_incoming(none, before)
            phi.add_incoming(value, loop)
        builder.branch(head)
        builder.position_at_end(end)
        total = products.fold(builder.add(*phis))
        before = builder.block
        n_left = builder.sub(n_dims, dim)
        with builder.if_then(builder.icmp_signed(">", n_left, ir.Constant(_LONG, 0))):
            ones = ir.Constant(ir.IntType(size), 2**size - 1)
            n_missing = builder.sub(ir.Constant(_LONG, size), n_left)
            n_missing = n_missing if size == 64 else builder.trunc(n_missing, ones.type)
            mask = builder.bitcast(builder.lshr(ones, n_missing), bits)
            rest = products.fold(builder.add(*add([none, none], dim, mask)))
            rest = builder.add(total, rest)
            within = builder.block
        result = builder.phi(_INT)
        result.add_incoming(total, before)
        result.add_incoming(rest, within)
        return builder.add(result, start)

    return signature, generate


@intrinsic
def first_bit(typingctx, mask):
    """Place of the lowest bit that is set; there must be one."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def count_bits(typingctx, mask):
    """How many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate
