"""How many processes a server has, by what there is to compute with."""

from pathlib import Path

import pytest

from service.config import ServiceSettings
from service.server import worker_count as module
from service.server.worker_count import MOST_FRONTS, has_encoder_process, worker_count
from vision.errors import DeviceError
from vision.inference import open_encoder


def settings(**given: object) -> ServiceSettings:
    return ServiceSettings(**given)  # type: ignore[arg-type]


@pytest.fixture(params=[1, 2, 16, 64])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "usable_cores", lambda: request.param)
    monkeypatch.setattr(module, "usable_memory_bytes", lambda: None)
    return int(request.param)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_before_a_gpu_there_is_a_worker_for_each_core_but_one(device: str, cores: int) -> None:
    assert has_encoder_process(settings(device=device))
    assert worker_count(settings(device=device)) == min(max(1, cores - 1), MOST_FRONTS)
    assert worker_count(settings(device=device, workers=3)) == 3


def test_a_gpu_that_is_there_is_taken(
    cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(open_encoder, "NVIDIA", tmp_path)
    assert has_encoder_process(settings())
    assert worker_count(settings()) == min(max(1, cores - 1), MOST_FRONTS)
    assert not has_encoder_process(settings(device="cpu"))
    assert not has_encoder_process(settings(runtime="openvino"))


def test_on_a_cpu_each_worker_computes_by_itself(
    cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    monkeypatch.setattr(open_encoder, "NVIDIA", tmp_path / "none")
    for given in ({}, {"device": "cpu"}, {"model": model}, {"runtime": "torch"}):
        assert not has_encoder_process(settings(**given))
        assert worker_count(settings(**given)) == 1


def test_what_cannot_be_is_refused(model: Path) -> None:
    with pytest.raises(DeviceError):
        worker_count(settings(model=model, device="cuda", runtime="openvino"))


@pytest.mark.parametrize(("gibibytes", "count"), [(2, 1), (4, 2), (6, 6), (64, 15)])
def test_before_a_gpu_the_process_with_the_network_has_room_beside_the_workers(
    gibibytes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 16)
    monkeypatch.setattr(module, "usable_memory_bytes", lambda: gibibytes * 2**30)
    assert worker_count(settings(device="cuda")) == count
