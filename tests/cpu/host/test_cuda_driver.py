"""The CUDA driver's calls against a library that stands in for the driver, which is not here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tickrt.host import cuda

SOURCE = Path(cuda.__file__).read_text(encoding="utf-8")
CALLS = sorted(set(re.findall(r'"(cu[A-Z]\w+)"', SOURCE)) - {"cuGetErrorName", "cuGetErrorString"})
# Everything that a device does, once; what fails is printed, with what is still held.
USE = """
import ctypes, json, os, threading
import numpy as np
from tickrt.host.cuda import CudaError, open_device
def use(device):
    assert (device.name, device.architecture) == ("NVIDIA stub", "sm_90")
    address = device.upload(np.arange(8, dtype=np.float32))
    device.fill(address, 7, 8)
    device.free(address)
    page = np.zeros(4096, np.uint8)
    assert device.register(page.ctypes.data, 4096) == page.ctypes.data
    device.unregister(page.ctypes.data)
    module = device.load(b"cubin")
    device.launch(module.function("f", 1000, True), 2, 32, 1000, bytes(96))
    assert device.finished()
    device.wait()
    module.close()
    pinned, back = device.pinned(64), np.zeros(16, np.float32)
    pinned.view[:] = 5
    target = device.allocate(64)
    device.settle()
    def work():
        device.copy_in(target, pinned.address, 64)
        device.copy_within(target, target, 64)
        device.copy_out(pinned.address, target, 64)
    graph = device.record(work)
    assert (graph.nodes, device.stream != 0) == (3, True)
    graph.upload()
    graph.launch()
    device.download(back, target)
    assert (back.view(np.uint8) == 5).all()
    graph.close()
    device.free(target)
    pinned.close()
    device.give_back(device.import_memory(os.open("/dev/null", os.O_RDONLY), 65536))
said = []
def work():
    try:
        use(open_device())
    except CudaError as error:
        said.append(str(error))
files = len(os.listdir("/proc/self/fd"))
work()
thread = threading.Thread(target=work)
thread.start(); thread.join()
held = ctypes.CDLL("libcuda.so.1").stub_held
left = len(os.listdir("/proc/self/fd")) - files
print(json.dumps([said, [held(i) for i in range(6)], left]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("cuda.c")
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    return folder


def run(code: str, driver: Path, **variables: str) -> list[object]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


def test_every_call_succeeds_from_every_thread(driver: Path) -> None:
    said, held, files = run(USE, driver)
    assert said == []
    assert held == [0] * 6
    assert files == 2  # the external memory's, which the driver of a GPU takes over


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails_is_named_with_its_reason(name: str, driver: Path) -> None:
    said, held, files = run(USE, driver, STUB_FAIL=name)
    reason = "CUDA_ERROR_OUT_OF_MEMORY (2): out of memory"
    wanted = "the kernel ended" if name == "cuStreamQuery" else name
    assert said == [f"{wanted}: {reason}"] * 2
    if name == "cuImportExternalMemory":
        assert files == 0  # it was closed
    if name in ("cuExternalMemoryGetMappedBuffer", "cuImportExternalMemory"):
        assert held == [0] * 6


def test_a_kernel_that_runs_is_not_finished(driver: Path) -> None:
    code = "from tickrt.host.cuda import open_device; print([open_device().finished()])"
    assert run(code.replace("print([", "print([1 - "), driver, STUB_BUSY="1") == [1]


LOAD = """
import json, ctypes
import numpy as np
from tickrt.errors import HostError
from tickrt.host.kernels.resident import load, pack
facts = {"blocks": 16, "threads": 512, "shared_bytes": 4096, "architecture": "sm_90a",
         "width": 3, "outputs": 3, "marks": ["row"]}
arrays = {name: np.zeros(8, np.float32) for name in ("starts", "constants", "weights")}
said = []
for architecture in ("sm_90a", "sm_80"):
    content = pack({**facts, "architecture": architecture}, arrays, b"cubin")
    try:
        kernel = load({"kernel": memoryview(content)}, {"engines": {"full": "kernel"}})
        said.append(kernel.problem())
        kernel.close()
    except HostError as error:
        said.append(str(error))
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
held = ctypes.CDLL("libcuda.so.1").stub_held
print(json.dumps([said, [held(i) for i in range(6)]]))
"""


def test_a_kernel_is_loaded_and_given_back(driver: Path) -> None:
    said, held = run(LOAD, driver)
    assert isinstance(said, list)
    assert said[0] == "the resident kernel has ended by itself"
    assert said[1].startswith("IncompatibleError: the kernel was compiled for sm_80, this GPU")
    assert held == [0] * 6


@pytest.mark.parametrize(
    "name",
    [
        *("cuModuleGetFunction", "cuFuncSetAttribute", "cuMemAlloc_v2", "cuMemcpyHtoD_v2"),
        *("cuMemHostRegister_v2", "cuMemHostGetDevicePointer_v2"),
    ],
)
def test_a_load_that_fails_leaves_nothing_behind(name: str, driver: Path) -> None:
    said, held = run(LOAD, driver, STUB_FAIL=name)
    assert isinstance(said, list)
    assert said[0] == f"{name}: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory"
    assert held == [0] * 6


SERVE = """
import ctypes, json
import numpy as np
from tickrt.host.cuda import open_device
from tickrt.host.kernels.resident import load, pack
from tickrt.host.mailbox import Layout, Mailbox
from tickrt.host.memory import memfd
from tickrt.host.memory.registry import Attached
facts = {"blocks": 2, "threads": 512, "shared_bytes": 4096, "architecture": "sm_90a",
         "width": 3, "outputs": 3, "marks": []}
arrays = {name: np.zeros(8, np.float32) for name in ("starts", "constants", "weights")}
content = memoryview(pack(facts, arrays, b"cubin"))
layout = Layout(3, 3)
held = ctypes.CDLL("libcuda.so.1").stub_held
found = []
for _ in range(3):
    made = [memfd.allocate(size) for size in (layout.row_bytes, layout.host_bytes)]
    rows, host = [memfd.attach(memory.fd, memory.size) for memory in made]
    if IMPORTED:  # as memory of the GPU that the loop stores into
        rows = Attached("vulkan", None, made[0].fd)
    kernel = load({"kernel": content}, {"engines": {"full": "kernel"}})
    kernel.begin(Mailbox(layout, host.view, fresh=True), rows, host)
    while_serving = [held(i) for i in range(6)]
    kernel.finish()
    kernel.close()
    found.append([while_serving, [held(i) for i in range(6)]])
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("imported", "held"), [(False, [4, 1, 3, 0, 0, 0]), (True, [5, 1, 2, 1, 0, 0])]
)
def test_each_engine_gives_back_all_that_it_took(
    imported: bool, held: list[int], driver: Path
) -> None:
    found = run(SERVE.replace("IMPORTED", str(imported)), driver)
    assert found == [[held, [0] * 6]] * 3
