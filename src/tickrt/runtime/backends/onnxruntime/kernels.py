"""The C functions behind a split model's handle: `step` on the path, the rest after the order.

A context is an int64 array. It holds one block per graph (`BLOCK_*`: what `OrtApi::Run` needs) and
the bookkeeping below. States are ready for row q + 1 when PREPARED = q; `submit` of a row whose
states are not ready prepares them first, on the path, and counts that in WAITS.

Tables of OrtValues are indexed by where a row lies in the mirrored ring (`feature.streams`): row q
at ring row q % T; the T−1 rows before row q + 1 start at q % T + 2. Banks and carried states are
double-buffered: PARITY says which of the two is read next.
"""

from tickrt.compile.codes import ENGINE_FAILED, OK
from tickrt.compile.intrinsics import call8, load_i64, store_i64, store_release
from tickrt.compile.jit import kernel

# Columns of a context, as byte offsets. The first is that of `backend_kernels`.
STAMP = 0
RUN = 8
WINDOW = 16  # T
MODE = 24
COUNT = 32  # rows since the last reset
PREPARED = 40  # states are ready for the row after this one; −1: for none
PARITY = 48
STATUS = 56  # OrtStatus* of the last failure
WAITS = 64  # rows whose states were prepared on the path
START = 72  # address of the bank's start values
BANK = 80  # address of the bank's first buffer
BANK_WORDS = 88  # int64 words of one buffer
LAST = 96  # row that was advanced last
STEP = 104  # blocks
PRE = 168
ADVANCE = 232
CTX_BYTES = 296

# Columns of a block.
BLOCK_SESSION = 0
BLOCK_INPUT_NAMES = 8
BLOCK_INPUTS = 16  # OrtValue*[index][n]
BLOCK_N_INPUTS = 24
BLOCK_OUTPUT_NAMES = 32
BLOCK_OUTPUTS = 40  # OrtValue*[index][m]
BLOCK_N_OUTPUTS = 48

MODE_PRE, MODE_BANK, MODE_CARRY = 0, 1, 2


@kernel
def run_graph(ctx, block, index, out_index):
    """Run a graph on input set `index` into output set `out_index`."""
    base = ctx + block
    inputs, outputs = load_i64(base + BLOCK_N_INPUTS), load_i64(base + BLOCK_N_OUTPUTS)
    status = call8(
        load_i64(ctx + RUN),
        load_i64(base + BLOCK_SESSION),
        0,
        load_i64(base + BLOCK_INPUT_NAMES),
        load_i64(base + BLOCK_INPUTS) + 8 * index * inputs,
        inputs,
        load_i64(base + BLOCK_OUTPUT_NAMES),
        outputs,
        load_i64(base + BLOCK_OUTPUTS) + 8 * out_index * outputs,
    )
    if status != 0:
        store_i64(ctx + STATUS, status)
        return ENGINE_FAILED
    return OK


@kernel
def turn(ctx):
    """The other buffer is read next."""
    store_i64(ctx + PARITY, 1 - load_i64(ctx + PARITY))


@kernel
def prepare(ctx, seq, first):
    """States for the row after `seq` from the T−1 known rows that start at ring row `first`."""
    out = load_i64(ctx + PARITY) if load_i64(ctx + MODE) == MODE_CARRY else 0
    code = run_graph(ctx, PRE, first - 1, out)
    if code == OK:
        store_i64(ctx + PREPARED, seq)
    return code


@kernel
def forget(ctx):
    """No state is ready, the bank is at its start."""
    store_i64(ctx + COUNT, 0)
    store_i64(ctx + PREPARED, -1)
    store_i64(ctx + PARITY, 0)
    start, bank = load_i64(ctx + START), load_i64(ctx + BANK)
    for i in range(load_i64(ctx + BANK_WORDS)):
        store_i64(bank + 8 * i, load_i64(start + 8 * i))


@kernel
def step_index(ctx, seq):
    """The input set of `step` for row `seq`."""
    index = seq % load_i64(ctx + WINDOW)
    if load_i64(ctx + MODE) == MODE_CARRY:
        index += load_i64(ctx + PARITY) * load_i64(ctx + WINDOW)
    return index


def split_submit(ctx, seq, n):
    """Run `step` on row `seq`; its states are there unless this is the first row after a fault."""
    if load_i64(ctx + STATUS) != 0:
        return ENGINE_FAILED  # the first failure is kept until someone has read it
    window = load_i64(ctx + WINDOW)
    slot = seq % window
    if load_i64(ctx + PREPARED) != seq - 1:
        store_i64(ctx + WAITS, load_i64(ctx + WAITS) + 1)
        if prepare(ctx, seq - 1, slot + 1) != OK:
            return ENGINE_FAILED
    if run_graph(ctx, STEP, step_index(ctx, seq), 0) != OK:
        return ENGINE_FAILED
    store_release(load_i64(ctx + STAMP), seq)
    return OK


@kernel
def next_states(ctx, seq):
    """States for the row after `seq`."""
    window, mode = load_i64(ctx + WINDOW), load_i64(ctx + MODE)
    if mode != MODE_PRE and load_i64(ctx + LAST) != seq - 1:  # a row is missing in what was built
        forget(ctx)
    store_i64(ctx + LAST, seq)
    count, parity = load_i64(ctx + COUNT) + 1, load_i64(ctx + PARITY)
    store_i64(ctx + COUNT, count)
    slot = seq % window
    if mode == MODE_BANK:
        code = run_graph(ctx, ADVANCE, parity * window + slot, parity)
        turn(ctx)
        if code == OK and count >= window - 1:
            store_i64(ctx + PREPARED, seq)
        return code
    if count < window - 1:
        return OK
    if mode == MODE_PRE or load_i64(ctx + PREPARED) != seq - 1:
        return prepare(ctx, seq, slot + 2)
    code = run_graph(ctx, ADVANCE, parity * window + slot, parity)
    turn(ctx)
    if code == OK:
        store_i64(ctx + PREPARED, seq)
    return code


def split_advance(ctx, seq):
    """Row `seq` is in and its order is out: states for the row after it.

    Then a `step` into the spare output, on the row that the next one will overwrite: the weights of
    `step` are in the cache again when it comes.
    """
    if load_i64(ctx + STATUS) != 0:
        return ENGINE_FAILED
    code = next_states(ctx, seq)
    if code == OK and load_i64(ctx + PREPARED) == seq:
        code = run_graph(ctx, STEP, step_index(ctx, seq + 1), 1)
    return code


def split_reset(ctx):
    """The stream starts anew."""
    forget(ctx)
    return OK
