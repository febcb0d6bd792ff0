"""Vector instructions that a compiler does not find by itself, and distances in float64."""

from contextlib import nullcontext

import numpy as np
from llvmlite import binding, ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 numbers of a vector
SUMS = 32  # partial sums of a distance
_PART_PAIRS = 1024  # measured by a thread at a time

_PACKS_AT_ONCE = binding.get_host_cpu_features().get("avx512f", False)


@intrinsic
def prefetch(typingctx, array, offset):  # noqa: ARG001
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
        to_read, in_all_caches, data_cache = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(function, [address, to_read, in_all_caches, data_cache])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _pack(typingctx, values, first, to_values, to_places, count):  # noqa: ARG001
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
def measure_pairs(features, left, right):
    """Squared distances ``(p,)`` of pairs of images, as :func:`squared_distance` defines them.

    Args:
        features: Shape ``(n, d)``, float32, C-contiguous.
        left: Shape ``(p,)``, int64.
        right: Shape ``(p,)``, int64.
    """
    squared = np.empty(len(left))
    n_parts = -(-len(left) // _PART_PAIRS)
    for part in prange(n_parts):
        sums = np.empty(SUMS)
        for pair in range(part * _PART_PAIRS, min((part + 1) * _PART_PAIRS, len(left))):
            squared[pair] = squared_distance(features[left[pair]], features[right[pair]], sums)
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
