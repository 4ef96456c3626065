"""``tickrt data rows``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickrt.cli.common import Force, Json, Spec
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tickrt.feature.rows import Features

__all__ = ["rows"]

FORMATS = (".parquet", ".npz")
LABELS = ("down", "flat", "up")


def rows(
    file: Annotated[Path, typer.Argument(help="An event file of one symbol.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file to write: .parquet or .npz, by its name.")
    ],
    spec: Spec = None,
    horizon_ms: Annotated[
        float,
        typer.Option(min=0.001, help="Labels say where the mid price is so much later."),
    ] = 100.0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the rows that a model would see, with times, mid prices and labels.

    One row per completed batch, normalised as the spec says. A label is 0 down, 1 flat, 2 up over
    the horizon, −1 where the file ends before it; `complete` is false while the window before the
    row has a reset in it. A .parquet file has one column per number, named as in `tickrt spec
    show`, and the spec's hash in its metadata; a .npz has one array `rows` instead. Times are UTC,
    in ns; mid prices are in quote currency.

    [bold]Examples[/bold]

    \b
      tickrt data rows btc.npz --spec light -o rows.parquet
      tickrt data rows btc.npz --spec my.toml --horizon-ms 250 -o rows.npz
    """
    from tickrt.cli.output import check_free, emit
    from tickrt.cli.progress import working
    from tickrt.cli.rows import find_spec
    from tickrt.feature.rows import features

    if out.suffix not in FORMATS:
        raise ConfigError(f"--out {out}: expected a name that ends in {' or '.join(FORMATS)}")
    check_free(out, force)
    found = find_spec(spec, None, str(file))
    with working(f"rows of {file.name}", as_json):
        made = features(file, found, horizon_ns=round(horizon_ms * 1e6))
    assert made.labels is not None
    _write(out, made, made.labels)
    labelled = made.labels[made.samples()]
    facts = {
        "path": str(out),
        "rows": len(made.rows),
        "width": found.width,
        "spec": found.name,
        "feature_hash": found.hash,
        "samples": len(labelled),
        "labels": {name: int((labelled == i).sum()) for i, name in enumerate(LABELS)},
        "horizon_ms": horizon_ms,
    }
    emit(facts, as_json, title=str(out))


def _write(out: Path, made: Features, labels: npt.NDArray[np.int8]) -> None:
    """The rows as a file that is there whole or not at all."""
    import io

    from tickrt.files import write_file

    buffer = io.BytesIO()
    if out.suffix == ".npz":
        import numpy as np

        np.savez(
            buffer,
            names=np.array(made.spec.names),
            feature_hash=np.array(made.spec.hash),
            rows=made.rows,
            times_ns=made.times_ns,
            mid=made.mid,
            complete=made.complete,
            label=labels,
        )
    else:
        from pyarrow import parquet

        parquet.write_table(made.to_arrow(), buffer)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, [buffer.getvalue()])
