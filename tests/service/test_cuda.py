"""What can be tried of CUDA with a build for CPUs; tests/gpu_build tries the rest with the build for GPUs."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from service.cuda import Buffered, CudaSettings, can_be_buffered, provider_options
from service.runtime import CPU, CUDA, open_session
from service.settings import Settings


@pytest.fixture
def session(make_bundle):
    return open_session((make_bundle("small") / "generator.onnx").read_bytes(), "cpu")


def feed(session, rows, seed=0):
    random = np.random.default_rng(seed)
    made = {"z": random.standard_normal((rows, 4), dtype=np.float32)}
    return {tensor.name: made[tensor.name] for tensor in session.get_inputs()}


def test_kernels_are_not_chosen_by_the_clock_and_keep_their_bits():
    assert provider_options(CudaSettings()) == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


def test_what_an_operator_may_ask_for(monkeypatch):
    monkeypatch.setenv("SERVICE_CUDA_TF32", "true")
    monkeypatch.setenv("SERVICE_CUDA_MEMORY_BYTES", str(2**31))
    options = provider_options(CudaSettings())
    assert (options["use_tf32"], options["gpu_mem_limit"]) == ("1", "2147483648")
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_a_wrong_value_ends_the_process_with_a_line(monkeypatch):
    monkeypatch.setenv("SERVICE_CUDA_MEMORY_BYTES", "2GB")
    with pytest.raises(SystemExit, match="SERVICE_CUDA_MEMORY_BYTES='2GB' is not usable"):
        Settings.from_environment()


class SaysCuda:
    """A session on the CPU that says it is on CUDA."""

    def __init__(self, *arguments):
        self._session = open_session(*arguments)

    def __getattr__(self, name):
        return getattr(self._session, name)

    def get_providers(self):
        return [CUDA, CPU]


def test_a_batch_has_one_size_on_cuda_though_no_row_shows_why(plain, generator_of, monkeypatch):
    free = generator_of(plain)
    assert free.measured.batch is None
    monkeypatch.setattr("service.generator.open_session", SaysCuda)
    fixed = generator_of(plain)
    assert (fixed.measured.provider, fixed.measured.determinism) == (CUDA, "exact; batch=8")
    feed = fixed.task.feed(range(11), [None] * 11, [1.0] * 11)
    np.testing.assert_array_equal(fixed.run(feed), free.run(feed))
    assert fixed.padding(11) == 5


def test_buffers_give_what_the_session_gives(session):
    buffered = Buffered(session, "cpu")
    names = [output.name for output in session.get_outputs()]
    for rows in (2, 32, 1, 2, 5):
        given = feed(session, rows, seed=rows)
        for one, other in zip(buffered.run(names, given), session.run(names, given), strict=True):
            np.testing.assert_array_equal(one, other)
    assert buffered.get_providers() == session.get_providers()


def test_a_result_is_nobody_elses(session):
    """Neither what is given later, nor what is done with the result, changes another one."""
    buffered = Buffered(session, "cpu")
    first, *_ = buffered.run(["pixels"], feed(session, 2, seed=1))
    kept = first.copy()
    buffered.run(["pixels"], feed(session, 2, seed=2))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(buffered.run(["pixels"], feed(session, 2, seed=1))[0], kept)


def test_rows_that_are_not_contiguous(session):
    given = {"z": np.asfortranarray(feed(session, 4)["z"])}
    np.testing.assert_array_equal(Buffered(session, "cpu").run(["pixels"], given)[0], session.run(["pixels"], given)[0])


def test_sizes_that_are_free_are_not_buffered():
    sides = ["N", "H", "W", 3]
    x, out = (helper.make_tensor_value_info(name, TensorProto.UINT8, sides) for name in ("x", "out"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["out"])], "same", [x], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    free = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert not can_be_buffered(free)


def test_a_generator_is_buffered(session):
    assert can_be_buffered(session)
