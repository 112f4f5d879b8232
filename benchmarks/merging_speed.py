"""Speed, memory and agreement of merging, as whole processes beside mergekit.

    python benchmarks/merging_speed.py [--mergekit PYTHON] [--scratch FOLDER] [--repeats 3] [--linear-repeats 15]
                                       [--large 1 5]

Measures, on synthetic fp32 checkpoints with the shapes of timm's vit_base_patch32_224 (base + 4 experts):
whole-process wall and CPU time and peak anonymous memory (RssAnon of /proc, polled) of task arithmetic and TIES; the
time of the merge alone beside a yardstick that reads all inputs and writes the output; ‖ours − mergekit's‖ / ‖τ‖; and
peak memory on sharded models of 1 and 5 GB. One thread each. mergekit is run from an environment of its own.
Results go to benchmarks/results/merging_speed.json.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "merging_speed.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
EXPERTS = 4
MIB = 2**20
IMPORT_ONLY = "import advisor.merging"
MERGE = """
import sys, time, json
from advisor.merging import merge
job = json.loads(sys.argv[1])
begin, used = time.perf_counter(), time.process_time()
result = merge(job["base"], job["experts"], out=job["out"], method=job["method"], **job["options"])
print(json.dumps({"inner_seconds": time.perf_counter() - begin, "inner_cpu_seconds": time.process_time() - used}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, help="python of an environment with mergekit 0.1.5")
    parser.add_argument("--scratch", type=Path, help="folder with 25 GB free; default: the system's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--linear-repeats", type=int, default=15, help="of linear merges, which take under a second")
    parser.add_argument("--mergekit-repeats", type=int, default=1)
    parser.add_argument("--only-vit", action="store_true", help="leave the sharded models as they were measured")
    parser.add_argument("--only-linear", action="store_true", help="measure linear merges beside the yardstick alone")
    parser.add_argument("--only-large", action="store_true", help="measure the sharded models again, keep the rest")
    parser.add_argument("--large", type=float, nargs="*", default=[1, 5], help="sizes of the sharded models in GB")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"environment": describe_environment(arguments.mergekit)}
    if arguments.only_large:
        results = json.loads(RESULTS.read_text())
        results["environment_large"] = describe_environment(None)
        measure_all_large(results, arguments.large, arguments.scratch)
        return
    if arguments.only_linear:
        results = json.loads(RESULTS.read_text())
        results["linear"] = {"environment": describe_environment(None)}
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            for label, pause in (("back_to_back", 0.0), ("disk_rested", REST)):
                rounds = {True: arguments.linear_repeats}
                results["linear"][label] = measure_vit(Path(folder), None, rounds, 0, LINEAR, pause)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        return
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        results["vit_b32"] = measure_vit(
            Path(folder),
            arguments.mergekit,
            {False: arguments.repeats, True: arguments.linear_repeats},
            arguments.mergekit_repeats,
        )
    if arguments.only_vit:
        earlier = json.loads(RESULTS.read_text())
        results |= {
            key: earlier[key]
            for key in ("environment_large", "large", "large_since_larger_blocks", "linear")
            if key in earlier
        }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    if not arguments.only_vit:
        measure_all_large(results, arguments.large, arguments.scratch)


def measure_all_large(results: dict[str, Any], sizes: list[float], scratch: Path | None) -> None:
    results["large"] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            for row in measure_large(Path(folder), size):
                results["large"].append(row)
                RESULTS.write_text(json.dumps(results, indent=2) + "\n")
                print(json.dumps(row), flush=True)


def describe_environment(mergekit: Path | None) -> dict[str, Any]:
    return {
        "command": "python benchmarks/merging_speed.py",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mergekit": version_of(mergekit) if mergekit else None,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load_before": os.getloadavg()[0],
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip(),
    }


def version_of(python: Path) -> str:
    code = "from importlib.metadata import version; print(version('mergekit'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def make_vit(folder: Path) -> dict[str, Path]:
    """Base and experts with a ViT-B/32's shapes; task vectors as large as a short fine-tune's (1 % of the base)."""
    import timm
    import torch

    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in timm.create_model("vit_base_patch32_224").state_dict().items()}
    rng = np.random.default_rng(0)
    base = {name: 0.02 * rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    paths = {"base": folder / "base.safetensors"}
    save_file(base, paths["base"], metadata={"format": "pt"})
    for number in range(EXPERTS):
        label = f"e{number}"
        paths[label] = folder / f"{label}.safetensors"
        moved = {n: t + np.float32(2e-4) * rng.standard_normal(t.shape, dtype=np.float32) for n, t in base.items()}
        save_file(moved, paths[label], metadata={"format": "pt"})
    return paths


JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "task_arithmetic": ("task_arithmetic", {"coefficients": 0.3}),
    "ties_tensor": ("ties", {"scope": "tensor", "density": 0.2, "coefficients": 1.0}),
    "ties_global": ("ties", {"scope": "global", "density": 0.2, "coefficients": 1.0}),
    "average": ("average", {}),
}


LINEAR = ("task_arithmetic", "average")
REST = 1.0  # seconds before a round, in which the disk gets done with what the last one left


def measure_vit(
    folder: Path,
    mergekit: Path | None,
    repeats: dict[bool, int],
    slow_repeats: int,
    names: Sequence[str] = tuple(JOBS),
    pause: float = 0.0,
) -> dict[str, Any]:
    """Our runs and the yardstick in turn, ``repeats`` of other (False) and of linear merges (True)."""
    paths = make_vit(folder)
    size = paths["base"].stat().st_size
    results: dict[str, Any] = {"checkpoint_mib": size / MIB, "experts": EXPERTS}
    results["import_anon_mib"] = watch([sys.executable, "-c", IMPORT_ONLY])["peak_anon_mib"]
    runs: dict[str, Any] = {}
    for name in names:
        yardsticks: list[tuple[float, float]] = []

        def run(name: str = name, yardsticks: list[tuple[float, float]] = yardsticks) -> dict[str, float]:
            time.sleep(pause)
            yardsticks.append(read_and_write(list(paths.values()), folder / "copy"))
            return run_ours(name, paths, folder / f"ours-{name}")

        runs[name] = {"ours": repeat(run, repeats[name in LINEAR]), "repeats": repeats[name in LINEAR]}
        for clock, inner, column in (("seconds", "inner_seconds", 0), ("cpu_seconds", "inner_cpu_seconds", 1)):
            floor = min(times[column] for times in yardsticks)
            runs[name][f"yardstick_{clock}"] = floor
            runs[name][f"merge_over_yardstick_{clock}"] = runs[name]["ours"][inner] / floor
        usual = statistics.median(times[0] for times in yardsticks)
        runs[name]["median_yardstick_seconds"] = usual
        runs[name]["median_merge_over_yardstick_seconds"] = runs[name]["ours"]["median_inner_seconds"] / usual
        if mergekit is not None and name != "ties_global":
            target = folder / f"theirs-{name}"
            runs[name]["mergekit"] = repeat(partial(run_mergekit, mergekit, name, folder, target), slow_repeats)
            for clock in ("seconds", "cpu_seconds"):
                runs[name][f"speedup_{clock}"] = runs[name]["mergekit"][clock] / runs[name]["ours"][clock]
            runs[name]["difference"] = compare(paths, folder / f"ours-{name}", target)
            if name == "ties_tensor":
                runs[name]["difference"] |= compare_ties(paths, folder / f"ours-{name}", target, 0.2)
        print(name, json.dumps(runs[name]), flush=True)
    results["runs"] = runs
    return results


def run_ours(name: str, paths: dict[str, Path], out: Path) -> dict[str, float]:
    method, options = JOBS[name]
    shutil.rmtree(out, ignore_errors=True)
    experts = {label: str(path) for label, path in paths.items() if label != "base"}
    job = {"base": str(paths["base"]), "experts": experts, "out": str(out), "method": method, "options": options}
    return watch([sys.executable, "-c", MERGE, json.dumps(job)])


def run_mergekit(python: Path, name: str, folder: Path, out: Path) -> dict[str, float]:
    """Run mergekit on the very recipe that our merge wrote beside its weights."""
    shutil.rmtree(out, ignore_errors=True)
    recipe = folder / f"ours-{name}" / "mergekit.yml"
    command = python.parent / "mergekit-pytorch"
    return watch([str(command), str(recipe), str(out), "--random-seed", "7", "--quiet"])


def repeat(run: Callable[[], dict[str, float]], repeats: int) -> dict[str, float]:
    """Fastest run (other work on the machine only adds time), with the median for its spread and the highest memory."""
    runs = [run() for _ in range(repeats)]
    fastest = {key: min(found[key] for found in runs) for key in runs[0] if key.endswith("seconds")}
    inner = [found["inner_seconds"] for found in runs if "inner_seconds" in found]
    return {
        **fastest,
        **({"median_inner_seconds": statistics.median(inner)} if inner else {}),
        "median_seconds": statistics.median(found["seconds"] for found in runs),
        "peak_anon_mib": max(found["peak_anon_mib"] for found in runs),
    }


def watch(command: list[str]) -> dict[str, float]:
    """Wall time of a process, its peak anonymous memory, and what it printed of its own time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, anonymous_mib(process.pid))
        time.sleep(0.002)
    seconds = time.perf_counter() - begin
    out, err = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"command={command[0]!r} failed with {process.returncode}:\n{err[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": seconds, "cpu_seconds": used, "peak_anon_mib": peak}
    if out.strip().startswith("{"):
        found |= json.loads(out)
    return found


def anonymous_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def read_and_write(inputs: list[Path], copy: Path) -> tuple[float, float]:
    """Wall and CPU seconds to read all inputs and write (and sync) one output of their size."""
    buffer = bytearray(MIB)
    begin, used = time.perf_counter(), time.process_time()
    for path in inputs[1:]:
        with path.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    with inputs[0].open("rb", buffering=0) as source, copy.open("wb", buffering=0) as target:
        while count := source.readinto(buffer):
            target.write(memoryview(buffer)[:count])
        os.fsync(target.fileno())
    seconds = time.perf_counter() - begin, time.process_time() - used
    copy.unlink()
    return seconds


def compare(paths: dict[str, Path], ours: Path, theirs: Path) -> dict[str, float]:
    """‖ours − theirs‖ / ‖τ‖ with ‖τ‖ the mean norm of the task vectors, and how many numbers differ visibly."""
    base, first, mine = load_file(paths["base"]), load_file(paths["e0"]), load_file(ours / "model.safetensors")
    other = load_file(theirs / "model.safetensors")
    square = sum(float(((mine[n].astype("f8") - other[n]) ** 2).sum()) for n in base)
    tau = sum(float(((first[n].astype("f8") - base[n]) ** 2).sum()) for n in base)
    # Rounding to fp32 alone moves a number by up to half a unit in the last place, a third of its square on average.
    rounding = sum(float(((np.spacing(np.abs(t)).astype("f8") / 2) ** 2 / 3).sum()) for t in mine.values())
    return {
        "relative": (square / tau) ** 0.5,
        "fp32_rounding": (rounding / tau) ** 0.5,
        "differing_numbers": sum(int((np.abs(mine[n] - other[n]) > 1e-6).sum()) for n in base),
        "numbers": sum(t.size for t in base.values()),
    }


def compare_ties(paths: dict[str, Path], ours: Path, theirs: Path, density: float) -> dict[str, float]:
    """As `compare`, without the numbers where some |τ| equals its trim threshold or the trimmed τ cancel exactly.

    Differences of fp32 numbers fall on a grid, so some magnitudes are equal: of those at the threshold ours keeps all,
    mergekit as many as make up the count, in whatever order its sort leaves them; where the sum is exactly zero ours
    merges to zero as the paper's formula says, mergekit elects the positive sign.
    """
    base, mine = load_file(paths["base"]), load_file(ours / "model.safetensors")
    other = load_file(theirs / "model.safetensors")
    experts = [load_file(path) for label, path in paths.items() if label != "base"]
    square = tau = 0.0
    excluded = 0
    for name, tensor in base.items():
        ambiguous = np.zeros(tensor.shape, dtype=bool)
        total, moved = np.zeros_like(tensor), np.zeros(tensor.shape, dtype=bool)
        for expert in experts:
            change = expert[name] - tensor
            kept = max(1, int(density * change.size))
            threshold = np.partition(np.abs(change).ravel(), change.size - kept)[-kept]
            ambiguous |= np.abs(change) == threshold
            trimmed = change * (np.abs(change) >= threshold)
            total += trimmed
            moved |= trimmed != 0
        ambiguous |= moved & (total == 0)
        gap = (mine[name].astype("f8") - other[name])[~ambiguous]
        square += float((gap**2).sum())
        tau += float(((experts[0][name].astype("f8") - tensor) ** 2).sum())
        excluded += int(ambiguous.sum())
    return {"relative_without_ambiguous": (square / tau) ** 0.5, "ambiguous_numbers": excluded}


@contextmanager
def sharded_model(folder: Path, gigabytes: float, seed: int) -> Iterator[Path]:
    """A model of 4096 × 4096 fp32 matrices in shards of at most 0.5 GB, written without holding a shard."""
    tensor_bytes = 4096 * 4096 * 4
    count = max(1, round(gigabytes * 1e9 / tensor_bytes))
    per_shard = int(0.5e9 // tensor_bytes)
    rng = np.random.default_rng(0)
    blocks = [0.02 * rng.standard_normal((4096, 4096), dtype=np.float32) for _ in range(2)]
    shift = np.float32(2e-4) * np.random.default_rng(seed).standard_normal((4096, 4096), dtype=np.float32)
    folder.mkdir()
    weight_map = {}
    for start in range(0, count, per_shard):
        names = [f"layers.{number}.weight" for number in range(start, min(start + per_shard, count))]
        shard = f"model-{start:05d}.safetensors"
        state = {n: blocks[i % 2] + (shift if seed else np.float32(0)) for i, n in enumerate(names)}
        save_file(state, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    yield folder


def measure_large(folder: Path, gigabytes: float) -> Iterator[dict[str, Any]]:
    """Peak anonymous memory above the interpreter beside its limit, two experts."""
    places = {}
    for seed, label in enumerate(["base", "a", "b"]):
        with sharded_model(folder / label, gigabytes, seed) as place:
            places[label] = str(place)
    floor = watch([sys.executable, "-c", IMPORT_ONLY])["peak_anon_mib"]
    largest_tensor, largest_shard = 4096 * 4096 * 4 / MIB, 0.5e9 / MIB
    for name in ("task_arithmetic", "ties_tensor", "ties_global"):
        method, options = JOBS[name]
        experts = {label: place for label, place in places.items() if label != "base"}
        out = folder / "out"
        job = {
            "base": places["base"],
            "experts": experts,
            "out": str(out),
            "method": method,
            "options": {**options, "max_shard_size": int(0.5e9)},
        }
        found = watch([sys.executable, "-c", MERGE, json.dumps(job)])
        shutil.rmtree(out)
        yield {
            "gigabytes": gigabytes,
            "method": name,
            "experts": len(experts),
            "seconds": found["seconds"],
            "above_import_mib": found["peak_anon_mib"] - floor,
            "limit_mib": 2 * largest_shard + (len(experts) + 2) * largest_tensor,
            "largest_tensor_mib": largest_tensor,
        }


if __name__ == "__main__":
    main()
