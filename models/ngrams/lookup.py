"""The compiled look-up of a compact n-gram store: what a search in numba calls, millions of times.

    from gristmill.models.ngrams.lookup import look_up

    @numba.njit
    def follow(body, state, words):          # body: store.body; state: store.begin
        total = np.float32(0)
        for word in words:                   # numbers of words: store.look_up(["turn", "it", "off"])
            logprob, state = look_up(body, state, np.int64(word))
            total += logprob
        return total, state

:func:`look_up` takes a state and the number of a word, both int64, and returns the base-10 logarithm of the word's
probability in that state, float32, and the next state, int64. ``body`` is one array, (cells,) uint64, read-only,
which is the mapped file's. It allocates nothing, raises nothing and takes no lock: it may be called from threads, and
released from the interpreter (``nogil``). A state is the longest suffix of the words so far that a score can depend
on, so that two histories with one state may be merged; 0 is the empty history. The caller sees to it that states come
from this store and that words are below ``body[WORDS]``: neither is checked, and another number may end the process.

A score is what ARPA says: the value of the longest n-gram that is listed, plus the back-offs of the longer contexts,
added in float32 from the shortest context on. KenLM adds in this order too, so the sums are the same to the last bit.

For a batch there is :func:`gristmill.models.ngrams.batch.look_up_all`, which is faster: memory answers several at
once.

Inside, functions take the address of the array's data, as numba counts references of each array that a function takes,
with atomic instructions. Why the parts lie as they do is said in :mod:`gristmill.models.ngrams.store`. Numba is
imported with this module, so import it where it is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from gristmill.models.kernels import kernel

# The first cells of a body. Places are bits, counted from the body's beginning.
WORDS = 0
SCALE = 1  # by which a word's number becomes its 52-bit fraction of all words
FLAGGED = 2  # arcs that may be states: those of all orders but the highest
FLAGS_AT = 3  # lines of four cells: the states before the line, and the bits of 192 arcs, whether each is a state
TABLES_AT = 4  # float32: values that are stored by their place here
SHARED = 5  # arcs whose stored bits of the word another arc of their state has too
SHARED_AT, SHARED_WORDS_AT = 6, 7  # uint32: these arcs, sorted, and their words
ORDER = 8
# Then a row a level, that of the states of so many words, and one of totals.
ROWS, COLUMNS = 16, 16
FIRST = 0  # the level's first state
STATE_AT, STATE_BITS = 1, 2  # records of states: the first arc, the number of the back-off state, the back-off
BEGIN_BITS, BACK_BITS = 3, 4  # widths of the fields
BACKOFF_BITS, BACKOFF_TABLE = 5, 6  # and the place of its table's first value; -1: the bits are those of a float32
ANCHORS_AT = 7  # uint32: the first arc of every 64th state; records have what is to be added
FIRST_ARC, ARC_AT = 8, 9  # the level's first arc; records of arcs: the word, or its upper bits, and the value
WORD_BITS, DROPPED = 10, 11  # the stored upper bits of a word, and the lower ones that are not stored
VALUE_BITS, VALUE_TABLE = 12, 13  # -1: the bits are those of a float32 without its sign, which is minus

ANCHORED = 6  # the logarithm to base 2 of an anchor's states
LINE, FLAGS = 4, 192  # cells and arcs of a line of flags
FRACTION = 52  # bits of a word's fraction; a product with a word's number stays below 2**63
MOST_ORDER = 8
_NEAR = 4  # arcs: from here on a step is walked
_STEPS = 3  # of the search before the walk: each leaves about the root of the distance


intrinsic: Any = extending.intrinsic  # by its own types a caller would have to give the context


@intrinsic
def address_of(context: Any, array: Any) -> Any:
    """Return the address of an array's data; the caller keeps the array."""

    def code(target: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = target.make_array(signature.args[0])(target, builder, given[0]).data
        return builder.ptrtoint(data, cgutils.intp_t)

    return types.int64(array), code


@intrinsic
def cell_of(context: Any, address: Any, place: Any) -> Any:
    """Return a cell, uint64."""

    def code(target: Any, builder: Any, signature: Any, given: Any) -> Any:
        cells = builder.inttoptr(given[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(cells, [given[1]]))

    return types.uint64(types.int64, types.int64), code


@intrinsic
def fetch(context: Any, address: Any, bit: Any) -> Any:
    """Have the line of memory of a bit fetched into the caches."""

    def code(target: Any, builder: Any, signature: Any, given: Any) -> Any:
        byte = builder.add(given[0], builder.lshr(given[1], ir.Constant(ir.IntType(64), 3)))
        pointer = builder.inttoptr(byte, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *[ir.IntType(32)] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, *(ir.Constant(ir.IntType(32), one) for one in (0, 3, 1))])
        return target.get_dummy_value()

    return types.void(types.int64, types.int64), code


@kernel
def entry(at, row, column):
    """Return an entry of a level's row."""
    return np.int64(cell_of(at, row + column))


@kernel
def field(at, bit, width):
    """Return the ``width`` bits from a bit on, at most 63, as an int64: the lowest bit is the first."""
    place = bit >> 6
    shift = np.uint64(bit & 63)
    high = (cell_of(at, place + 1) << np.uint64(1)) << (np.uint64(63) - shift)  # a shift by 64 is not defined
    return np.int64(((cell_of(at, place) >> shift) | high) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@kernel
def _ones(cell):
    """Return the number of 1s: one instruction, as the compiler knows this form."""
    cell = cell - ((cell >> np.uint64(1)) & np.uint64(0x5555555555555555))
    cell = (cell & np.uint64(0x3333333333333333)) + ((cell >> np.uint64(2)) & np.uint64(0x3333333333333333))
    cell = (cell + (cell >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((cell * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel
def begin_of(at, row, number):
    """Return the first arc of a level's state, counted from the level's first; those of the one before end there."""
    anchor = field(at, entry(at, row, ANCHORS_AT) + ((number >> ANCHORED) << 5), 32)
    record = entry(at, row, STATE_AT) + number * entry(at, row, STATE_BITS)
    return anchor + field(at, record, entry(at, row, BEGIN_BITS))


@kernel
def arc_near(at, row, begin, end, word):
    """Return about where a word's arc is among those of a state; its number is that part of all words."""
    return begin + (((end - begin) * ((word * np.int64(cell_of(at, SCALE))) >> 20)) >> 32)


@kernel
def find(at, row, number, word):
    """Return the arc of a word in a level's state, -1 if there is none; all counted from the level's first."""
    if row == ROWS:
        return word
    begin, end = begin_of(at, row, number), begin_of(at, row, number + 1)
    if begin == end:
        return np.int64(-1)
    return search(at, row, begin, end, word)


@kernel
def search(at, row, begin, end, word):
    """Return the arc of a word among some arcs of a level, at least one, that belong to one state; -1 without one.

    Words are numbered by a hash, so the numbers of a state's words are spread evenly, and the place of a word among n
    is about its fraction of all words times n: the distance is about half the root of n, and each further step of the
    same kind leaves the root of that. The walk at the end is right whatever the distance.
    """
    width, dropped = entry(at, row, WORD_BITS), entry(at, row, DROPPED)
    bits, base = width + entry(at, row, VALUE_BITS), entry(at, row, ARC_AT)
    scale, wanted, count = np.int64(cell_of(at, SCALE)), word >> dropped, end - begin
    arc = arc_near(at, row, begin, end, word)
    key = field(at, base + arc * bits, width)
    if count > 2 * _NEAR:
        for _ in range(_STEPS):
            step = (count * ((((wanted - key) << dropped) * scale) >> 20)) >> 32
            if -_NEAR <= step <= _NEAR:
                break
            arc = min(max(arc + step, begin), end - 1)
            key = field(at, base + arc * bits, width)
    if key < wanted:
        while key < wanted:
            arc += 1
            if arc == end:
                return np.int64(-1)
            key = field(at, base + arc * bits, width)
    else:
        while key > wanted:
            arc -= 1
            if arc < begin:
                return np.int64(-1)
            key = field(at, base + arc * bits, width)
    if key != wanted:
        return np.int64(-1)
    if dropped:
        return _among_shared(at, row, arc, begin, end, word)
    return arc


@kernel
def _among_shared(at, row, arc, begin, end, word):
    """Return the arc of a word among those of equal upper bits, or the one that there is."""
    width, base = entry(at, row, WORD_BITS), entry(at, row, ARC_AT)
    bits = width + entry(at, row, VALUE_BITS)
    key = field(at, base + arc * bits, width)
    first, last = arc, arc + 1
    while first > begin and field(at, base + (first - 1) * bits, width) == key:
        first -= 1
    while last < end and field(at, base + last * bits, width) == key:
        last += 1
    if last - first == 1:
        return arc
    listed, words = np.int64(cell_of(at, SHARED_AT)), np.int64(cell_of(at, SHARED_WORDS_AT))
    low, high, wanted = np.int64(0), np.int64(cell_of(at, SHARED)), entry(at, row, FIRST_ARC) + first
    while low < high:
        middle = (low + high) >> 1
        if field(at, listed + (middle << 5), 32) < wanted:
            low = middle + 1
        else:
            high = middle
    for one in range(last - first):
        if field(at, words + ((low + one) << 5), 32) == word:
            return first + one
    return np.int64(-1)


@kernel
def _value(at, table, code):
    """Return a value of a table, float32."""
    return np.uint32(field(at, np.int64(cell_of(at, TABLES_AT)) + ((table + code) << 5), 32)).view(np.float32)


@kernel
def arc_value(at, row, arc):
    """Return the log-probability of a level's arc, float32."""
    before, width, table = entry(at, row, WORD_BITS), entry(at, row, VALUE_BITS), entry(at, row, VALUE_TABLE)
    code = field(at, entry(at, row, ARC_AT) + arc * (before + width) + before, width)
    if table >= 0:
        return _value(at, table, code)
    return np.uint32(code | 0x80000000).view(np.float32)


@kernel
def back_of(at, row, number):
    """Return the back-off of a level's state, float32, and the state of the longest shorter context that is one."""
    first, wide, width = entry(at, row, BEGIN_BITS), entry(at, row, BACK_BITS), entry(at, row, BACKOFF_BITS)
    record = entry(at, row, STATE_AT) + number * entry(at, row, STATE_BITS) + first
    code, table = field(at, record + wide, width), entry(at, row, BACKOFF_TABLE)
    state = field(at, record, wide)
    if table >= 0:
        return _value(at, table, code), state
    return np.uint32(code).view(np.float32), state


@kernel
def state_of(at, arc):
    """Return the state of the n-gram that an arc, counted from the first of all, completes; 0 if it is none."""
    if arc >= np.int64(cell_of(at, FLAGGED)):
        return np.int64(0)
    line, left = arc // FLAGS, arc % FLAGS
    place = (np.int64(cell_of(at, FLAGS_AT)) >> 6) + line * LINE
    found = np.int64(cell_of(at, place)) + 1
    place += 1
    while left >= 64:
        found += _ones(cell_of(at, place))
        place += 1
        left -= 64
    cell = cell_of(at, place)
    if (cell >> np.uint64(left)) & np.uint64(1) == 0:
        return np.int64(0)
    return found + _ones(cell & ((np.uint64(1) << np.uint64(left)) - np.uint64(1)))


@kernel
def level_of(at, state):
    """Return the row of a state's level."""
    row = np.int64(ROWS)
    while state >= entry(at, row + COLUMNS, FIRST):
        row += COLUMNS
    return row


@kernel
def _step(at, state, word):
    """Do :func:`look_up` for the body at an address."""
    row = level_of(at, state)
    here = state
    # The back-offs that were passed, the last one first: from there they are added. An array would be allocated.
    a = b = c = d = e = f = g = np.float32(0)
    arc = find(at, row, here - entry(at, row, FIRST), word)
    while arc < 0:
        a, b, c, d, e, f, g = np.float32(0), a, b, c, d, e, f
        a, here = back_of(at, row, here - entry(at, row, FIRST))
        while here < entry(at, row, FIRST):
            row -= COLUMNS
        arc = find(at, row, here - entry(at, row, FIRST), word)
    score = arc_value(at, row, arc) + a + b + c + d + e + f + g
    following = state_of(at, entry(at, row, FIRST_ARC) + arc)
    while following == 0 and row > ROWS:
        _, here = back_of(at, row, here - entry(at, row, FIRST))
        while here < entry(at, row, FIRST):
            row -= COLUMNS
        arc = find(at, row, here - entry(at, row, FIRST), word)
        if arc >= 0:
            following = state_of(at, entry(at, row, FIRST_ARC) + arc)
    return score, following


@kernel
def look_up(body, state, word):
    """Return the base-10 log-probability of a word in a state, float32, and the next state, int64.

    Source of the arithmetic: Katz, Estimation of Probabilities from Sparse Data, 1987.
    """
    return _step(address_of(body), state, word)


@kernel
def score_sentences(body, begin, words, ends, scores):
    """Score sentences that lie one behind the other, each from the state ``begin`` on; ``ends`` is where each ends."""
    at = address_of(body)
    place = 0
    for end in ends:
        state = np.int64(begin)
        while place < end:
            scores[place], state = _step(at, state, np.int64(words[place]))
            place += 1
