"""The C functions behind the CPU handles: `null` and `onnxruntime`.

A context is an int64 array; the constants below are its columns. The functions run on the loop's
own thread, so a result is there when `submit` returns; `poll` still checks the stamp.
"""

from tickrt.compile.codes import ENGINE_FAILED, ENGINE_STALE, OK, PENDING
from tickrt.compile.intrinsics import call8, load_acquire, load_i64, store_i64, store_release

# Columns of a context, as byte offsets.
STAMP = 0  # address of the stamp
RUN = 8  # address of OrtApi::Run
SESSION = 16  # OrtSession*
INPUT_NAMES = 24  # address of const char*[n]
INPUTS = 32  # address of OrtValue*[windows][n]: one set per position of the window in the ring
N_INPUTS = 40
OUTPUT_NAMES = 48  # address of const char*[m]
OUTPUTS = 56  # address of OrtValue*[m]
N_OUTPUTS = 64
WINDOWS = 72  # T: positions that a window can have
STATUS = 80  # OrtStatus* of the last failure, 0 when there is none
CTX_BYTES = 88


def null_submit(ctx, seq, n):
    """Nothing to compute: the output is constant, its stamp is the row's number."""
    store_release(load_i64(ctx + STAMP), seq)
    return OK


def poll(ctx, seq):
    """OK when the stamp is `seq`."""
    stamp = load_acquire(load_i64(ctx + STAMP))
    if stamp == seq:
        return OK
    return PENDING if stamp < seq else ENGINE_STALE


def nothing(ctx, seq):
    """`advance` of a backend that has nothing to prepare."""
    return OK


def ort_reset(ctx):
    """A whole window holds no state."""
    return OK


def ort_submit(ctx, seq, n):
    """Run the session on the window that ends with row `seq`, where it lies."""
    if load_i64(ctx + STATUS) != 0:
        return ENGINE_FAILED  # the first failure is kept until someone has read it
    inputs = load_i64(ctx + N_INPUTS)
    position = seq % load_i64(ctx + WINDOWS)
    status = call8(
        load_i64(ctx + RUN),
        load_i64(ctx + SESSION),
        0,
        load_i64(ctx + INPUT_NAMES),
        load_i64(ctx + INPUTS) + 8 * position * inputs,
        inputs,
        load_i64(ctx + OUTPUT_NAMES),
        load_i64(ctx + N_OUTPUTS),
        load_i64(ctx + OUTPUTS),
    )
    if status != 0:
        store_i64(ctx + STATUS, status)
        return ENGINE_FAILED
    store_release(load_i64(ctx + STAMP), seq)
    return OK
