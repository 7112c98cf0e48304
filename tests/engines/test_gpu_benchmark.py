"""The benchmark for a GPU: tried on a CPU as it runs on a machine with torch and little else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpu_profile import REST, kind_of, summary
from helpers.bare import bare


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_TNN", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>", "attention"),
        ("fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_index_1", "compiled elementwise"),
        ("_fold", "head fold"),
        ("void at::native::vectorized_gather_kernel<16, long>", "gather and copies"),
        ("void at::native::(anonymous)::indexSelectLargeIndex<c10::BFloat16>", "gather and copies"),
        (
            "void at::native::(anonymous)::CatArrayBatchedCopy_contig<OpaqueType>",
            "gather and copies",
        ),
        ("Memcpy DtoH (Device -> Pinned)", "gather and copies"),
        ("void at::native::vectorized_elementwise_kernel<4, silu_kernel>", REST),
        ("void at::native::reduce_kernel<512, 1, MeanOps<float>>", REST),
    ],
)
def test_kernels_are_told_apart_by_their_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_idle_is_the_time_in_which_no_kernel_runs() -> None:
    """Kernels may overlap, and one may lie within another."""
    intervals = [("gemm", 0.0, 40.0), ("silu", 30.0, 50.0), ("silu", 31.0, 35.0)]
    found = summary([*intervals, ("flash", 75.0, 100.0)])
    assert found.idle == pytest.approx(0.25)
    assert found.shares["products"] == pytest.approx(0.4)
    assert found.shares[REST] == pytest.approx(0.24)
    assert found.shares["attention"] == pytest.approx(0.25)
    assert list(found.most) == ["gemm", "flash", "silu"]


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_with_torch_and_transformers_alone(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    printed = bare("gpu", "--tiny", "--rounds", "1", "--json", str(file))
    found = json.loads(file.read_text())
    assert found["products_flops"]["sustained"] > 0 < min(found["products_flops"]["best"].values())
    results = found["results"]
    assert {(r["shape"], r["workload"], r["method"]) for r in results} == {
        (shape, workload, method)
        for shape in ("tiny", "tiny-tied")
        for workload in ("w-a", "w-b", "w-c")
        for method in ("drsow", "rows")
    }
    for result in results:
        assert result["problem"] is None
        assert result["unique_tokens_per_s"] > 0 < result["share_of_sustained"]
        assert result["backbone"] >= result["unique_backbone"]
        if result["method"] == "drsow":
            assert result["backbone"] == result["unique_backbone"]
            assert result["head"] == result["unique_head"]
            assert sum(result["profile"]["shares"].values()) == pytest.approx(1, abs=1e-2)
            assert result["profile"]["shares"]["products"] > 0
        else:
            assert result["differs_most"] < 0.1
    last = printed.strip().splitlines()[-8:]
    assert last[0].endswith("| idle |")
    assert all(line.startswith("| tiny") for line in last[2:])


@pytest.mark.slow
def test_what_is_there_when_the_time_is_up_is_printed() -> None:
    printed = bare("gpu", "--tiny", "--time-limit", "3")
    assert "The time is up, after 3 s." in printed
    assert "| model | workload | method |" in printed.split("The time is up")[1]


@pytest.mark.slow
def test_what_a_dtype_costs_is_measured_there_too(tmp_path: Path) -> None:
    """The free memory of a CPU is told by psutil."""
    document = tmp_path / "README.md"
    document.write_text("<!-- precision cpu: begin -->\n<!-- precision cpu: end -->\n")
    given = ("--pairs", "4", "--models", "tiny", "--out", str(document))
    bare("precision", *given, also=("psutil",))
    lines = [line.split(" | ") for line in document.read_text().splitlines() if "|" in line][2:]
    error = {cells[0].strip("| "): float(cells[1]) for cells in lines}
    assert error["float32"] == 0 < error["float16"] < error["bfloat16"]
