"""Loops over the rows of a batch, compiled for the processor at hand by numba: what stands between the int8 products of `quantized.py`.

A row is computed by itself, in the same order whatever rows and whatever padding stand beside it. Every kernel equals a formula of
`attention.py`, `block.py` or torch; the tests compare them. Compiled code is kept on disk, so only the first answer on a machine waits
for the compiler (which does not notice when a function that another file's kernel calls has changed: then delete __pycache__).
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Array = np.ndarray[Any, Any]

# Sums may be taken in any order, so that they fit into vector registers; NaN and infinity keep their meaning.
FREEDOMS = {"reassoc", "contract", "arcp", "nsz"}
F32, I32, I8 = np.float32, np.int32, np.int8
LEVELS = F32(127)  # of int8, on each side of zero
TINY = F32(1e-30)  # in place of the largest value of a row of zeros
ZERO, ONE, HALF = F32(0), F32(1), F32(0.5)
NEVER = F32(-np.inf)
# Added to a float32 below 2^22, it leaves the nearest integer in the low bits: int(bits(x + SHIFT) - bits(SHIFT)) = round(x).
SHIFT, SHIFT_BITS = F32(12582912.0), I32(0x4B400000)
SIGN_OFF = I32(0x7FFFFFFF)
LOG2_E, LOWEST = F32(1 / math.log(2)), F32(-87)  # e^-87 is the smallest that float32 holds with all its digits
EXP2 = tuple(F32(math.log(2) ** i / math.factorial(i)) for i in range(8))  # Taylor coefficients of 2^f, exact to 1e-8 in |f| <= 1/2
C0, C1, C2, C3, C4, C5, C6, C7 = EXP2
GELU_TANH = (F32(math.sqrt(2 / math.pi)), F32(0.044715))
# Abramowitz & Stegun 1964, 7.1.26: erf to 1.5e-7.
ERF_P, ERF_1, ERF_2, ERF_3, ERF_4, ERF_5 = map(F32, (0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
SQRT_HALF = F32(math.sqrt(0.5))
ACTIVATION_CODES = {"relu": 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "sigmoid": 4, "tanh": 5}


def compiled(function: Kernel) -> Kernel:
    """Compile a function when it is first called; other threads of Python run on meanwhile."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FREEDOMS, "error_model": "numpy"}
    try:
        return cast(Kernel, numba.njit(function, cache=True, **options))
    except RuntimeError:  # no folder that may be written to
        return cast(Kernel, numba.njit(function, **options))


@compiled
def _bits(x: Any) -> Any:
    """Return the bits of a float32 as an int32."""
    return np.float32(x).view(np.int32)


@compiled
def _number(bits: Any) -> Any:
    """Return the float32 that has the bits of an int32."""
    return np.int32(bits).view(np.float32)


@compiled
def exponential(x: Any) -> Any:
    """Return e^x of a float32, to 2e-7 + 6e-8 |x| of its value; 0 below LOWEST, and at most e^88."""
    y = min(max(x, LOWEST), F32(88)) * LOG2_E
    whole = I32(_bits(y + SHIFT) - SHIFT_BITS)
    f = y - F32(whole)
    power = C0 + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * (C6 + f * C7))))))
    value = _number(_bits(power) + I32(whole << 23))
    return x if x != x else (value if x >= LOWEST else ZERO)


@compiled
def _round_row(row: Array, levels: Array) -> Any:
    """Round a row (D,) to int8 levels, and return the step between them; NaN and infinity come back as the step."""
    bits = row.view(I32)
    top = I32(0)
    for i in range(row.size):
        top = I32(max(top, I32(bits[i] & SIGN_OFF)))  # as integers, magnitudes have the same order, and their maximum is taken many at once
    largest = _number(top)
    step = TINY if largest <= TINY else largest / LEVELS
    inverse = ONE / step
    for i in range(row.size):
        levels[i] = I8(_bits(row[i] * inverse + SHIFT))
    return step


@compiled
def _normalise_row(row: Array, norm: Array, epsilon: Any, rms: Any, out: Array) -> None:
    """Layer norm (or RMS norm) of a row (D,); norm holds its weight and bias, (2, D)."""
    n = F32(row.size)
    mean = ZERO
    if not rms:
        for i in range(row.size):
            mean += row[i]
        mean /= n
    variance = ZERO
    for i in range(row.size):
        variance += (row[i] - mean) * (row[i] - mean)
    factor = ONE / F32(math.sqrt(variance / n + epsilon))
    for i in range(row.size):
        out[i] = (row[i] - mean) * factor * norm[0, i] + norm[1, i]


@compiled
def _expand_row(sums: Array, step: Any, columns: Array, out: Array) -> None:
    """Turn a row of integer sums (F,) into numbers; columns holds the step and the bias of each of them, (2, F)."""
    for i in range(sums.size):
        out[i] = F32(sums[i]) * step * columns[0, i] + columns[1, i]


@compiled
def round_rows(x: Array, levels: Array, steps: Array) -> None:
    """Round rows (R, D) to int8 levels (R, D), each with a step of its own (R,)."""
    for r in range(x.shape[0]):
        steps[r] = _round_row(x[r], levels[r])


@compiled
def expand_rows(sums: Array, steps: Array, columns: Array, out: Array) -> None:
    """Turn integer sums (R, F) into numbers (R, F): sums * step of the row * step of the column + bias."""
    for r in range(sums.shape[0]):
        _expand_row(sums[r], steps[r], columns, out[r])


@compiled
def enter(x: Array, norm: Array, epsilon: Any, rms: Any, levels: Array, steps: Array) -> None:
    """Normalise rows (R, D) when there is a norm (2, D), not (0, D), and round them."""
    normed = np.empty(x.shape[1], F32)
    for r in range(x.shape[0]):
        if norm.shape[0]:
            _normalise_row(x[r], norm, epsilon, rms, normed)
            steps[r] = _round_row(normed, levels[r])
        else:
            steps[r] = _round_row(x[r], levels[r])


@compiled
def leave(sums: Array, steps: Array, columns: Array, gate: Any, norm: Array, epsilon: Any, rms: Any, x: Array) -> None:
    """Add a sub-layer's sums (R, D), as numbers and times the gate, to x (R, D) in place; then normalise when there is a norm (2, D)."""
    for r in range(x.shape[0]):
        row = x[r]
        for i in range(row.size):
            row[i] += gate * (F32(sums[r, i]) * steps[r] * columns[0, i] + columns[1, i])
        if norm.shape[0]:
            _normalise_row(row, norm, epsilon, rms, row)


@compiled
def normalise(x: Array, norm: Array, epsilon: Any, rms: Any) -> None:
    """Normalise rows (R, D) in place."""
    for r in range(x.shape[0]):
        _normalise_row(x[r], norm, epsilon, rms, x[r])


@compiled
def _sigmoid(x: Any) -> Any:
    return ONE / (ONE + exponential(-x))


@compiled
def _activate_row(row: Array, code: Any) -> None:
    """Apply one of ACTIVATION_CODES to a row (F,) in place."""
    if code == 0:
        for i in range(row.size):
            row[i] = max(row[i], ZERO)
    elif code == 1:
        for i in range(row.size):
            z = row[i] * SQRT_HALF
            t = ONE / (ONE + ERF_P * abs(z))
            tail = t * (ERF_1 + t * (ERF_2 + t * (ERF_3 + t * (ERF_4 + t * ERF_5)))) * exponential(-z * z)
            erf = ONE - tail if z >= ZERO else tail - ONE
            row[i] = HALF * row[i] * (ONE + erf)
    elif code == 2:
        for i in range(row.size):
            z = GELU_TANH[0] * (row[i] + GELU_TANH[1] * row[i] * row[i] * row[i])
            row[i] = row[i] * _sigmoid(z + z)
    elif code == 3:
        for i in range(row.size):
            row[i] = row[i] * _sigmoid(row[i])
    elif code == 4:
        for i in range(row.size):
            row[i] = _sigmoid(row[i])
    else:
        for i in range(row.size):
            row[i] = _sigmoid(row[i] + row[i]) * F32(2) - ONE


@compiled
def activate(sums: Array, steps: Array, columns: Array, code: Any, gated: Any, levels: Array, new_steps: Array) -> None:
    """Apply the non-linearity of a feed-forward to sums (R, F), and round what comes of it.

    gated: sums are (R, 2 F); their second half goes through the non-linearity and is multiplied into the first.
    """
    inner = np.empty(sums.shape[1], F32)
    width = levels.shape[1]
    for r in range(sums.shape[0]):
        _expand_row(sums[r], steps[r], columns, inner)
        if gated:
            _activate_row(inner[width:], code)
            for i in range(width):
                inner[i] *= inner[width + i]
        else:
            _activate_row(inner, code)
        new_steps[r] = _round_row(inner[:width], levels[r])


@compiled
def _mix(
    q: Array,
    keys: Array,
    key_head: Any,
    values: Array,
    value_head: Any,
    rows: Array,
    n: Any,
    mask: Array,
    factor: Any,
    weights: Array,
    out: Array,
) -> None:
    """Let one query (E,) look at n places; the mixture of their values goes to out (E,), zeros when it may look nowhere.

    Args:
        keys, values: (P, H, S, E), each with the head that is looked at; place s is read in row rows[s] of them.
        mask: where it may look, (n,); (0,): everywhere.
        weights: room for n numbers.
    """
    top = NEVER
    for s in range(n):
        if mask.size and not mask[s]:
            weights[s] = NEVER
            continue
        key = keys[rows[s], key_head, s]
        score = ZERO
        for i in range(q.size):
            score += q[i] * key[i]
        weights[s] = score * factor
        if not weights[s] <= top:
            top = weights[s]
    out[:] = ZERO
    if top == NEVER:
        return
    total = ZERO
    for s in range(n):
        weights[s] = exponential(weights[s] - top)
        total += weights[s]
    for s in range(n):
        value, weight = values[rows[s], value_head, s], weights[s] / total
        for i in range(q.size):
            out[i] += weight * value[i]


@compiled
def _real_length(mask: Array) -> Any:
    """Return how many places there are up to the last real one, (S,); padding behind it is not even looked at."""
    n = mask.size
    while n > 0 and not mask[n - 1]:
        n -= 1
    return n


@compiled
def _turn(x: Array, rotation: Array) -> None:
    """Turn the pairs of one head (E,) in place; rotation holds cosine and sine of each pair, (E / 2, 2)."""
    for i in range(rotation.shape[0]):
        even, odd = x[2 * i], x[2 * i + 1]
        x[2 * i] = even * rotation[i, 0] - odd * rotation[i, 1]
        x[2 * i + 1] = even * rotation[i, 1] + odd * rotation[i, 0]


@compiled
def look_back(
    sums: Array,
    steps: Array,
    columns: Array,
    rotation: Array,
    keys: Array,
    values: Array,
    trail: Array,
    length: Any,
    factor: Any,
    levels: Array,
    new_steps: Array,
) -> None:
    """Let the newest token of every row look at itself and at all before it.

    Args:
        sums: integer sums of its query, key and value, (R, (H + 2 H') E).
        rotation: cosine and sine of its position for each pair of features, (E / 2, 2); (0, 2): none.
        keys, values: (P, H', capacity, E), of which the first `length` are filled; the token's own are added.
        trail: in which of the P rows each token of a row lies, (R, capacity); see `BranchingCache`.
        levels, new_steps: what the heads found side by side, (R, H E), rounded.
    """
    n_kv, E = keys.shape[1], keys.shape[3]
    width = levels.shape[1]
    token, mixed = np.empty(sums.shape[1], F32), np.empty(width, F32)
    weights, everywhere = np.empty(length + 1, F32), np.empty(0, np.bool_)
    share = (width // E) // n_kv
    for r in range(sums.shape[0]):
        _expand_row(sums[r], steps[r], columns, token)
        for start in range(0, width + n_kv * E, E):
            _turn(token[start : start + E], rotation)
        for h in range(n_kv):
            start = width + h * E
            keys[trail[r, length], h, length] = token[start : start + E]
            values[trail[r, length], h, length] = token[start + n_kv * E : start + n_kv * E + E]
        for h in range(width // E):
            q, out = token[h * E : h * E + E], mixed[h * E : h * E + E]
            _mix(q, keys, h // share, values, h // share, trail[r], length + 1, everywhere, factor, weights, out)
        new_steps[r] = _round_row(mixed, levels[r])


@compiled
def look_around(
    sums: Array,
    steps: Array,
    columns: Array,
    rotation: Array,
    mask: Array,
    n_kv: Any,
    E: Any,
    factor: Any,
    levels: Array,
    new_steps: Array,
) -> None:
    """Let all tokens of a sequence look at each other.

    Args:
        sums: integer sums of their queries, keys and values, (B T, (H + 2 H') E).
        rotation: cosine and sine of each place for each pair of features, (T, E / 2, 2); (T, 0, 2): none.
        mask: which of them are real, (B, T); (B, 0): all.
        levels, new_steps: what the heads found side by side, (B T, H E), rounded.
    """
    B, width = mask.shape[0], levels.shape[1]
    T, H = sums.shape[0] // B, width // E
    tokens, mixed = np.empty((1, H + 2 * n_kv, T, E), F32), np.empty((T, width), F32)
    token, weights, rows = np.empty(sums.shape[1], F32), np.empty(T, F32), np.zeros(T, np.int64)
    for b in range(B):
        for t in range(T):
            r = b * T + t
            _expand_row(sums[r], steps[r], columns, token)
            for h in range(H + 2 * n_kv):
                if h < H + n_kv:
                    _turn(token[h * E : h * E + E], rotation[t])
                tokens[0, h, t] = token[h * E : h * E + E]
        n = _real_length(mask[b]) if mask.shape[1] else T
        for h in range(H):
            key_head = H + h // (H // n_kv)
            for t in range(T):
                out = mixed[t, h * E : h * E + E]
                _mix(tokens[0, h, t], tokens, key_head, tokens, key_head + n_kv, rows, n, mask[b], factor, weights, out)
        for t in range(T):
            new_steps[b * T + t] = _round_row(mixed[t], levels[b * T + t])


@compiled
def look_across(
    sums: Array,
    steps: Array,
    columns: Array,
    keys: Array,
    values: Array,
    mask: Array,
    factor: Any,
    levels: Array,
    new_steps: Array,
) -> None:
    """Let one token of every row look at its source.

    Args:
        sums: integer sums of its query, (R, H E).
        keys, values: of the sources, (B, H', S, E); the R / B rows of one source stand side by side.
        mask: which of a source is real, (B, S); (B, 0): all.
        levels, new_steps: what the heads found side by side, (R, H E), rounded.
    """
    n_kv, S, E = keys.shape[1], keys.shape[2], keys.shape[3]
    width = levels.shape[1]
    token, mixed, weights, rows = np.empty(width, F32), np.empty(width, F32), np.empty(S, F32), np.empty(S, np.int64)
    share, group = (width // E) // n_kv, sums.shape[0] // keys.shape[0]
    for r in range(sums.shape[0]):
        b = r // group
        rows[:] = b
        n = _real_length(mask[b]) if mask.shape[1] else S
        _expand_row(sums[r], steps[r], columns, token)
        for h in range(width // E):
            q, out = token[h * E : h * E + E], mixed[h * E : h * E + E]
            _mix(q, keys, h // share, values, h // share, rows, n, mask[b], factor, weights, out)
        new_steps[r] = _round_row(mixed, levels[r])
