"""Made-up records of runs, in the format of results/*.jsonl, for tests of summaries and the page.

The numbers are plausible and no more: curves that rise to a level which depends on rule and K.
"""

import hashlib
import json
import math
import random

CONFIGURATION = {
    "task": "s-mnist",
    "task_options": {},
    "subset": False,
    "limit": None,
    "cell": "lstm",
    "hidden": 128,
    "layers": 1,
    "readout": 0,
    "dropout": 0.0,
    "rule": "fptt",
    "source": "bptt",
    "parts": 14,
    "alpha": 0.1,
    "beta": 0.5,
    "mode": "code",
    "regularise": True,
    "loss": "auxiliary",
    "optimizer": "adam",
    "lr": 0.001,
    "momentum": 0.0,
    "clip": 1.0,
    "schedule": "step:13,18:0.3",
    "epochs": 22,
    "batch": 128,
    "dtype": "float32",
    "seed": 0,
    "engine": "native",
}
#: the pixels' network at batch 128: what is learnt, lambda and mean, activations of a step
PARAMETERS, PER_STEP = 67_850 * 4, 128 * 768 * 4


def arena(configuration, steps):
    wrapped = configuration["rule"] == "fptt" and configuration["regularise"]
    activations = -(-steps // max(1, configuration["parts"])) * PER_STEP
    return PARAMETERS * (5 if wrapped else 3) + activations


def record(
    table="s-mnist",
    variant="+ auxiliary + R",
    level=0.97,
    start=0.1,
    metric="test_accuracy",
    steps=784,
    **changes,
):
    """A run whose metric goes from `start` to about `level`."""
    configuration = CONFIGURATION | changes
    noise = random.Random(json.dumps([table, variant, configuration]))
    spread = 0.004 * level
    level += noise.gauss(0, spread)
    epochs = []
    for epoch in range(1, configuration["epochs"] + 1):
        share = 1 - math.exp(-6 * epoch / configuration["epochs"])
        share /= 1 - math.exp(-6)
        value = start + (level - start) * share
        if epoch < configuration["epochs"]:
            value *= 1 + noise.gauss(0, 0.004)
        epochs.append(
            {
                "epoch": epoch,
                "loss": 2.3 * (1 - share) + 0.05,
                "lr": 0.001,
                "seconds": 110.0,
                "test_loss": 2.3 * (1 - share) + 0.06,
                metric: value,
            }
        )
    return {
        "version": 1,
        "table": table,
        "variant": variant,
        "metric": metric,
        "key": hashlib.sha256(json.dumps(configuration).encode()).hexdigest()[:16],
        "configuration": configuration,
        "network": "LSTM(1, 128) - Linear(128, 10)",
        "parameters": 67850,
        "steps": steps,
        "train_sequences": 60000,
        "test_sequences": 10000,
        "commit": "5add61c",
        "machine": {
            "processor": "Some processor",
            "cores": 2,
            "system": "Linux",
            "python": "3.11.7",
            "numpy": "2.4",
            "fptt": "0.5",
        },
        "backend": "native, avx512, 1 thread",
        "date": f"2026-11-20T16:00:{configuration['seed'] % 60:02d}+00:00",
        "seconds": 2400.0,
        "arena_bytes": arena(configuration, steps),
        "memory_bytes": {"parameter": PARAMETERS},
        "epochs": epochs,
    }


def level_of(parts):
    """Good in the middle, poor at the ends, as published."""
    return 0.985 - 0.03 * abs(math.log(parts / 20)) ** 1.5 / 3


def sweep(table="s-mnist", parts=(1, 2, 4, 7, 14, 28, 98, 392, 784), seeds=3, **changes):
    for k in parts:
        for seed in range(seeds):
            for variant, more, bonus in (
                ("class loss", {"rule": "tbptt", "loss": "last"}, -0.01),
                ("+ auxiliary", {"rule": "tbptt"}, 0.0),
                ("+ auxiliary + R", {}, 0.004 if k > 98 else -0.002),
            ):
                options = {"task": table, "parts": k, "seed": seed} | more | changes
                yield record(table, variant, level_of(k) + bonus, **options)


def equal_memory(task, metric, levels, parts, seeds=3, **changes):
    """TBPTT and FPTT with the auxiliary loss; `levels`: (start, TBPTT, FPTT)."""
    start, tbptt, fptt = levels
    for k in parts:
        worse = (tbptt - start) * (1 - level_of(k) / 0.985)
        for seed in range(seeds):
            for rule, level in (("tbptt", tbptt), ("fptt", fptt)):
                options = {"task": task, "rule": rule, "parts": k, "seed": seed} | changes
                yield record(
                    "equal-memory",
                    f"{rule.upper()} + auxiliary",
                    level - worse,
                    start,
                    metric,
                    **options,
                )


def everything():
    """Records of every table."""
    yield from sweep()
    yield from sweep("ps-mnist", parts=(2, 7, 14, 28), seeds=2)
    yield from sweep("cifar10", parts=(2, 8, 16, 32), seeds=1, epochs=5)
    small = {"subset": True, "epochs": 8}
    yield from equal_memory(
        "s-mnist", "test_accuracy", (0.1, 0.975, 0.962), (4, 14, 28, 98), **small
    )
    yield from equal_memory("fsdd", "test_accuracy", (0.3, 0.93, 0.96), (4, 14, 28), **small)
    text = {"limit": 5000, "epochs": 5, "loss": "every_step"}
    yield from equal_memory("char", "test_perplexity", (40.0, 6.1, 6.1), (2, 4, 10), **text)
    for steps in (200, 1000):
        for variant, options in (
            ("BPTT", {"rule": "bptt", "parts": 1}),
            ("FPTT, K = 10", {"parts": 10}),
        ):
            for seed in range(3):
                level = 0.16 if variant == "BPTT" and steps == 1000 else 0.0008
                yield record(
                    "add",
                    variant,
                    level,
                    0.17,
                    "test_loss",
                    steps,
                    task="add",
                    task_options={"steps": steps},
                    loss="last",
                    seed=seed,
                    **options,
                )
    for k in (1, 5, 30, 100):
        for regularise in (True, False):
            yield record(
                "words",
                "with R" if regularise else "without R",
                100 + 3 * abs(math.log(k / 10)),
                400.0,
                "test_perplexity",
                300,
                task="words",
                parts=k,
                regularise=regularise,
                loss="every_step",
            )
    for seed in range(2):
        for engine in ("native", "torch"):
            for task in ("mnist-rows", "s-mnist"):
                yield record("programs", engine, 0.98, task=task, engine=engine, seed=seed) | (
                    {"arena_bytes": None} if engine == "torch" else {}
                )
    for rule in ("bptt", "fptt"):
        for name, options in (
            ("default net", {"readout": 256, "dropout": 0.2}),
            ("simplified net, momentum", {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05}),
            ("simplified net, no momentum", {"optimizer": "sgd", "lr": 0.05}),
        ):
            parts = 1 if rule == "bptt" else 10
            level = 0.42 if name.endswith("no momentum") else 0.98
            variant = f"{rule.upper()}, {name}"
            yield record("networks", variant, level, rule=rule, parts=parts, **options)
    for rule, name in (("fptt", "FPTT + auxiliary"), ("tbptt", "TBPTT + auxiliary")):
        yield record("full", name, 0.979, rule=rule, parts=10)
    yield record("fsdd", "FPTT", 0.95, task="fsdd", steps=40, parts=4)
    yield record("spiking", "FPTT, liquid time constants", 0.93, subset=True, parts=28)


def write(path, records, end="\n"):
    path.write_text("\n".join(json.dumps(one) for one in records) + end)
    return path
