"""``sap2 pipeline --ray``: the rows as a Ray Data set, decoded by workers on one machine or many.

This process reads the rows, starts the workers (or finds a cluster), and writes what comes back, by id, into the same
files as a run without Ray. Rows go out in blocks. A worker that dies loses its block, which is decoded by another one;
a row over which workers die again and again becomes an error of that row.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sap2 import __version__
from sap2.errors import EngineError, InputError, MissingExtraError, debugging, one_line
from sap2.pipeline.items import BadRow, Item
from sap2.pipeline.ray_actor import ERROR, FAULT, NO_ENGINE, REFUSED, RESULT, RowDecoder, Setup, rows_as_block
from sap2.pipeline.worker import Worker
from sap2.progress import Progress
from sap2.pruning.bank import read_bank

if TYPE_CHECKING:
    from sap2.pipeline.run import PipelineOptions

LOCAL = "local"
"""The address that stands for a cluster of this machine, which lasts as long as the run."""
RETRIES = 3
"""How often a block is sent again after the death of its worker."""
RESTARTS = 20
"""How often a worker is started again: it may lose its machine many times, but need not try to load for ever."""
_BLOCK_BATCHES = 16  # of a block at most: what a death costs, and how seldom a worker waits for the next one
_BLOCKS_EACH = 4  # of a worker at least, so that all end at about the same time
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_worker_niceness": "0",  # as a run without Ray: 15 is its default
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
_LOCAL_ENVIRONMENT = {
    # Ray then takes the loopback address, also where it would look for one that other machines reach: of the addresses
    # that ray.init is given it replaces 127.0.0.1, and all its ports would be open to the network
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",  # other users of this machine are turned away
}
"""Of a cluster that the command starts for itself."""


def check_ray(options: PipelineOptions) -> None:
    """Refuse what does not go with Ray, before any work is done.

    Raises:
        InputError: says what is allowed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("--ray", "ray[data]", "ray")
    if options.engine == "auto":
        raise InputError("--engine auto may be another engine on each machine; allowed with --ray: transformers, vllm")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--ray starts its workers itself; allowed: without torchrun")
    if ":" in (options.device or ""):
        raise InputError(f"--device {options.device}: Ray says which GPU a worker gets; allowed with --ray: cpu, cuda")
    if str(options.ray).startswith("ray://"):
        raise InputError(f"--ray {options.ray}: run the command on a machine of the cluster; allowed: auto, HOST:PORT")


def decode_with_ray(options: PipelineOptions, items: Sequence[Item], writer: Worker) -> None:
    """Have rows decoded by the workers of a cluster.

    Args:
        options: of the run.
        items: rows without a result.
        writer: of this process; it writes results and errors.

    Raises:
        InputError: there is no such cluster, it has no room for the workers, or these cannot do what is asked.
        EngineError: the workers do not start, or the cluster has died.
    """
    if options.term_bank:
        print(f"{options.term_bank}: {read_bank(options.term_bank)}", file=sys.stderr)
    left = {item.id: item for item in items}
    start, heard = time.perf_counter(), 0.0
    # what Ray has to say of dead workers is not what the command prints
    with Progress("decode", len(items)) as shown, contextlib.redirect_stdout(sys.stderr), _cluster(options) as cluster:
        # what kills its workers takes its block along, at first; then each row is alone
        for size in (cluster.block_size(len(items)), 1):
            for block in cluster.decode(list(left.values()), size):
                rows, errors = _read(block, left)
                heard += sum(row["audio_seconds"] for row in rows)
                writer.keep(rows, errors, heard, time.perf_counter() - start)
                shown.update(len(rows) + len(errors))
            if not left:
                return
        killers = [BadRow(item.number, item.id, f"it was the end of {RETRIES + 1} workers") for item in left.values()]
        writer.keep([], killers, heard, time.perf_counter() - start)


def _read(block: Mapping[str, Sequence[str]], left: dict[str, Item]) -> tuple[list[dict[str, Any]], list[BadRow]]:
    """Results and errors of a block, of rows that have none yet; these are no longer ``left``."""
    rows, errors = [], []
    for kind, content in zip(block["kind"], block["content"], strict=True):
        if kind == REFUSED:
            raise InputError(content)
        if kind == NO_ENGINE:
            raise EngineError(content)
        if kind == FAULT:
            raise RuntimeError(f"a worker of Ray failed:\n{content}")
        row = json.loads(content)
        if left.pop(row["id"], None) is None:
            continue
        if kind == RESULT:
            rows.append(row)
        else:
            assert kind == ERROR
            errors.append(BadRow(row["row"], row["id"], row["error"]))
    return rows, errors


class Cluster(NamedTuple):
    """A Ray cluster that this process is connected to, and the workers that it gets.

    Attributes:
        options: of the run.
        workers: how many at most; as many as there is room for at the time are at work.
        cpus, gpus: of each.
    """

    options: PipelineOptions
    workers: int
    cpus: float
    gpus: int

    def block_size(self, rows: int) -> int:
        """Rows of a block."""
        return max(1, min(_BLOCK_BATCHES * self.options.batch_size, -(-rows // (_BLOCKS_EACH * self.workers))))

    def decode(self, items: Sequence[Item], size: int) -> Iterator[Mapping[str, Sequence[str]]]:
        """Answers as they come.

        Raises:
            EngineError: workers do not start, or the cluster has died.
        """
        import pyarrow
        import ray.data

        blocks = [rows_as_block(items[first : first + size]) for first in range(0, len(items), size)]
        with warnings.catch_warnings(), _one_line_errors():
            warnings.simplefilter("ignore")  # that options of the workers will be given otherwise in a later Ray
            rows = ray.data.from_arrow([pyarrow.table(block) for block in blocks])
            answers = rows.map_batches(
                RowDecoder,
                fn_constructor_args=(self.options, self._setup()),
                batch_size=size,
                batch_format="numpy",
                compute=self._pool(),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=RESTARTS,
                max_task_retries=RETRIES,
            )
            yield from answers.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)

    def _setup(self) -> Setup:
        return Setup(__version__, str(Path.cwd()), None if self.gpus else int(self.cpus))

    def _pool(self) -> Any:
        from ray.data import ActorPoolStrategy

        # vLLM works on many utterances at once: a second block fills the gaps that the end of the first one leaves
        calls = 2 if self.options.engine == "vllm" else 1
        return ActorPoolStrategy(
            min_size=1,
            max_size=self.workers,
            initial_size=self.workers,
            max_tasks_in_flight_per_actor=calls + 1,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=calls > 1,
        )


@contextlib.contextmanager
def _cluster(options: PipelineOptions) -> Iterator[Cluster]:
    """Connect to the cluster, or start one of this machine that ends with the block."""
    for name, value in {**_ENVIRONMENT, **(_LOCAL_ENVIRONMENT if options.ray == LOCAL else {})}.items():
        os.environ.setdefault(name, value)
    if options.ray != LOCAL:
        _check_address(str(options.ray))
    import ray

    given: dict[str, Any] = {"log_to_driver": debugging(), "logging_level": logging.ERROR}
    if options.ray == LOCAL:
        given |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        with _quiet():
            ray.init(address=options.ray, **given)
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"--ray {options.ray}: no cluster there ({one_line(error):.200}), or it wants a token (RAY_AUTH_MODE=token)"
        ) from None
    except Exception as error:  # Ray has no type of its own for processes that do not come up in time
        raise EngineError(f"--ray {options.ray}: Ray did not start ({one_line(error):.200})") from None
    try:
        _configure()
        yield _workers(options, ray.cluster_resources(), len([node for node in ray.nodes() if node["Alive"]]))
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address where nobody listens, which Ray would try for minutes.

    Raises:
        InputError: says what came instead.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=20).close()
        except OSError as error:
            raise InputError(f"--ray {address}: no cluster there ({one_line(error)})") from None


def _configure() -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what a block leaves undone is counted here, by id
    context.print_on_execution_start = False


def _workers(options: PipelineOptions, resources: Mapping[str, float], machines: int) -> Cluster:
    """As many workers as were asked for, or one for each GPU, or where there is none one for each machine.

    Raises:
        InputError: there is no room for them.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if gpus and options.device != "cpu":
        arguments = options.engine_args or {}
        each = int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
        most = gpus // each
        asked = most if options.ray_actors is None else options.ray_actors
        if not 0 < asked <= most:
            raise InputError(f"{asked or 1} workers of {each} GPUs each need more than the cluster's {gpus} GPUs")
        return Cluster(options, asked, 1, each)
    asked = min(machines, cpus) if options.ray_actors is None else options.ray_actors
    if not 0 < asked <= cpus:
        raise InputError(f"--ray-actors {asked}: the cluster has {cpus} CPU cores; allowed: 1 to {cpus}")
    return Cluster(options, asked, cpus // asked, 0)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """What Ray itself raises (workers that do not start, a cluster that has died) as one line."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        if debugging():
            raise
        raise EngineError(f"Ray: {one_line(error):.300}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No greeting of Ray's libraries, which write past Python's streams; errors are raised."""
    if debugging():
        yield
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
