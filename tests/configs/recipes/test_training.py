"""How each protocol trains: budget, lengths, learning rates, optimiser, and what comes before."""

import pytest
import torch
from hydra.utils import instantiate

from macformer.runs.config import compose


@pytest.mark.by_recipe(
    {  # steps, batch, cut, padded
        "skyformer": {
            "listops": (50_000, 32, 2000, 2000),
            "text": (50_000, 32, 4000, 4000),
            "retrieval": (50_000, 16, 4000, 4000),
            "image": (50_000, 256, 1024, 1024),
            "pathfinder": (50_000, 128, 1024, 1024),
        },
        "skyformer_legacy": {
            "listops": (50_000, 32, 2000, 2048),
            "text": (50_000, 32, 4000, 4096),
            "retrieval": (50_000, 16, 4000, 4096),
            "image": (50_000, 256, 1024, 1024),
            "pathfinder": (50_000, 128, 1024, 1024),
        },
        "schoenbat_code": {
            "listops": (10_000, 32, 2000, 2048),
            "text": (10_000, 32, 4000, 4096),
            "retrieval": (10_000, 16, 4000, 4096),
            "image": (10_000, 256, 1024, 1024),
            "pathfinder": (10_000, 128, 1024, 1024),
        },
        "smoke": {
            "listops": (200, 8, 2000, 2000),
            "text": (200, 16, 4000, 4000),
            "retrieval": (200, 16, 4000, 4000),
            "image": (200, 16, 1024, 1024),
            "pathfinder": (200, 16, 1024, 1024),
        },
        "finetune": {
            "text": (1500, 32, 4000, 4000),
            "retrieval": (1500, 32, 4000, 4000),
        },
        "lra_code": {
            "listops": (5000, 32, 2000, 2000),
            "text": (20_000, 32, 1000, 1000),
            "retrieval": (5000, 32, 4000, 4000),
            "image": (200 * (45_000 // 256), 256, 1024, 1024),
            "pathfinder": (200 * (160_000 // 512), 512, 1024, 1024),
            "pathfinder64": (200 * (160_000 // 256), 256, 4096, 4096),
            "pathx": (200 * (160_000 // 64), 64, 16_384, 16_384),
        },
        "lra_paper": {
            "listops": (5000, 32, 2000, 2000),
            "text": (20_000, 32, 4000, 4000),
            "retrieval": (5000, 32, 4000, 4000),
            "image": (35_000, 256, 1024, 1024),
            "pathfinder": (62_400, 512, 1024, 1024),
            "pathx": (500_000, 64, 16_384, 16_384),
        },
        "s4_style": {
            "listops": (120_000, 32, 2048, 2048),
            "text": (50_000, 16, 4096, 4096),
            "retrieval": (50_000, 64, 4000, 4000),
            "image": (180_000, 50, 1024, 1024),
            "pathfinder": (500_000, 64, 1024, 1024),
            "pathx": (500_000, 16, 16_384, 16_384),
        },
        "spt": {
            "listops": (100 * (96_000 // 32), 32, 2048, 2048),
            "text": (65 * (25_000 // 32), 32, 4096, 4096),
            "retrieval": (32 * (147_086 // 32), 32, 4000, 4000),
            "image": (200 * (45_000 // 50), 50, 1024, 1024),
            "pathfinder": (200 * (160_000 // 32), 32, 1024, 1024),
            "pathx": (200 * (160_000 // 32), 32, 16_384, 16_384),
        },
        "laptop": {
            "listops_short": (8000, 32, 100, 100),
            "text": (2000, 16, 512, 512),
            "retrieval": (1000, 16, 512, 512),
            "image": (1000, 16, 1024, 1024),
            "pathfinder": (1000, 16, 1024, 1024),
            "mqar_small": (6000, 128, 16, 16),
            "selective_copy_small": (3000, 64, 72, 72),
        },
    }
)
def test_budget_and_lengths(recipe, task, expected, composed):
    cfg = composed(recipe, task)
    assert (cfg.max_steps, cfg.batch_size, cfg.max_seq_len, cfg.padded_len) == expected
    assert cfg.trainer.max_steps == cfg.max_steps
    # Every row is scored, but in a smoke test and where that would take longer than training.
    small = ("listops_short", "mqar_small", "selective_copy_small")
    limits = {"smoke": 32, "laptop": None if task in small else 256}
    assert cfg.trainer.limit_test_batches == limits.get(recipe)


FALL = (1e-4 + 4e-10) / 2  # half of the way down from the peak to 1/250,000 of it
ONE_CYCLE = {0: 4e-6, 333: 4e-6 + 9.6e-5 / 3, 999: 1e-4}
LEGACY_RATES = {
    "listops": {**ONE_CYCLE, 25_499: FALL, 49_999: 4e-10},
    "text": {0: 4e-6, 79: 1e-4, 25_039: FALL, 49_999: 4e-10, 12_559: 7.5e-5 + 1e-10},
    "retrieval": {
        0: 8e-6,
        799: 2e-4,
        25_399: 2 * FALL,
        49_999: 8e-10,
        17: 8e-6 + 17 * 1.92e-4 / 799,
    },
    "image": {0: 4e-6, 87: (4e-6 + 1e-4) / 2, 174: 1e-4, 49_999: 4e-10, 174 + 9965: 8e-5 + 8e-11},
    "pathfinder": {0: 8e-6, 311: 2e-4, 25_155: 2 * FALL, 49_999: 8e-10, 1: 8e-6 + 1.92e-4 / 311},
}
SMOKE_RATES = {0: 4e-5, 19: 1e-3, 64: 7.5e-4 + 1e-9, 109: 5e-4 + 2e-9, 199: 4e-9}
RATES = {  # the learning rate of five steps, counted from 0
    "skyformer": LEGACY_RATES,
    "skyformer_legacy": LEGACY_RATES,
    "schoenbat_code": {
        "listops": {**ONE_CYCLE, 5499: FALL, 9999: 4e-10},
        "text": {0: 4e-6, 79: 1e-4, 5039: FALL, 2559: 7.5e-5 + 1e-10, 9999: 4e-10},
        "retrieval": {0: 8e-6, 799: 2e-4, 5399: 2 * FALL, 3099: 1.5e-4 + 2e-10, 9999: 8e-10},
    },
    "smoke": dict.fromkeys(LEGACY_RATES, SMOKE_RATES),
    "lra_code": {  # 0.05 min(1, t / w) / sqrt(max(t, w)); half cosines on pictures
        "listops": {0: 0, 500: 7.9056942e-4, 1000: 1.5811388e-3, 4000: 7.9056942e-4, 2500: 1e-3},
        "text": {0: 0, 1000: 6.9877124e-5, 8000: 5.5901699e-4, 10_000: 5e-4, 16_000: 3.9528471e-4},
        "retrieval": {0: 0, 500: 3.49386e-5, 1000: 6.98771e-5, 4000: 2.79508e-4, 5000: 3.49386e-4},
        "image": {0: 0, 35: 1e-4, 175: 5e-4, 7140: 4.5225425e-4, 35_000: 0},
        "pathfinder": {0: 0, 156: 5e-4, 312: 1e-3, 21_008: 7.5e-4, 31_356: 5e-4},
        "pathfinder64": {0: 0, 125: 2e-4, 625: 1e-3, 25_500: 9.0450850e-4, 125_000: 0},
        "pathx": {0: 0, 625: 2.5e-4, 2500: 1e-3, 251_250: 5e-4, 500_000: 0},
    },
    "lra_paper": {
        "listops": {0: 0, 500: 7.9056942e-4, 1000: 1.5811388e-3, 4000: 7.9056942e-4, 2500: 1e-3},
        "text": {0: 0, 1000: 6.9877124e-5, 8000: 5.5901699e-4, 10_000: 5e-4, 16_000: 3.9528471e-4},
        "retrieval": {0: 0, 500: 3.49386e-4, 1000: 6.98771e-4, 4000: 2.79508e-3, 5000: 3.49386e-3},
        "image": {0: 0, 35: 2e-3, 175: 1e-2, 7140: 9.0450850e-3, 35_000: 0},
        "pathfinder": {0: 0, 156: 5e-3, 312: 1e-2, 21_008: 7.5e-3, 31_356: 5e-3},
        "pathx": {0: 0, 625: 2.5e-3, 2500: 1e-2, 251_250: 5e-3, 500_000: 0},
    },
    "s4_style": {
        "listops": {0: 0, 6000: 5e-4, 12_000: 1e-3, 48_000: 7.5e-4, 66_000: 5e-4},
        "text": {0: 0, 2500: 5e-4, 5000: 1e-3, 20_000: 7.5e-4, 27_500: 5e-4},
        "retrieval": {0: 0, 2500: 5e-4, 5000: 1e-3, 20_000: 7.5e-4, 35_000: 2.5e-4},
        "image": {0: 0, 9000: 5e-4, 18_000: 1e-3, 72_000: 7.5e-4, 99_000: 5e-4},
        "pathfinder": {0: 0, 25_000: 2.5e-4, 50_000: 5e-4, 200_000: 3.75e-4, 350_000: 1.25e-4},
        "pathx": {0: 0, 25_000: 2.5e-4, 50_000: 5e-4, 200_000: 3.75e-4, 500_000: 0},
    },
    "spt": {
        "listops": {0: 0, 1000: 5e-4, 2000: 1e-3, 150_000: 1e-3, 300_000: 1e-3},
        "text": {0: 0, 500: 2.5e-4, 2000: 1e-3, 20_000: 1e-3, 50_765: 1e-3},
        "retrieval": {0: 0, 2500: 5e-4, 5000: 1e-3, 70_000: 1e-3, 147_072: 1e-3},
        "image": {0: 0, 1000: 5e-4, 2000: 1e-3, 90_000: 1e-3, 180_000: 1e-3},
        "pathfinder": {0: 0, 2500: 2.5e-4, 5000: 5e-4, 500_000: 5e-4, 1_000_000: 5e-4},
        "pathx": {0: 0, 2500: 2.5e-4, 5000: 5e-4, 500_000: 5e-4, 1_000_000: 5e-4},
    },
}  # fmt: skip


@pytest.mark.by_recipe(RATES)
def test_learning_rate(recipe, task, expected, composed):
    cfg = composed(recipe, task)
    optimizer = instantiate(cfg.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    scheduler = instantiate(cfg.scheduler)(optimizer)
    optimizer.step()
    rates = {}
    for step in expected:
        scheduler.last_epoch = step - 1
        scheduler.step()
        rates[step] = optimizer.param_groups[0]["lr"]
    assert rates == pytest.approx(expected, rel=1e-5, abs=1e-15)


@pytest.mark.by_recipe(
    {  # betas, eps, weight decay, clipping
        "skyformer_legacy": {"listops": ([0.9, 0.999], 1e-6, 0.0, "clip_grad_value_")},
        "lra_code": {
            "listops": ([0.9, 0.98], 1e-9, 0.1, None),
            "image": ([0.9, 0.98], 1e-9, 0.0, None),
            "pathx": ([0.9, 0.98], 1e-9, 0.0, "clip_grad_norm_"),
        },
        "s4_style": {"image": ([0.9, 0.999], 1e-8, 0.05, None)},
        "spt": {
            "listops": ([0.9, 0.999], 1e-8, 0.0, None),
            "text": ([0.9, 0.999], 1e-8, 0.1, None),
            "image": ([0.9, 0.999], 1e-8, 0.0, None),
        },
    }
)
def test_optimizer(recipe, task, expected, composed):
    cfg = composed(recipe, task)
    clip = cfg.clip and cfg.clip._target_.rpartition(".")[2]
    optimizer = cfg.optimizer
    assert (list(optimizer.betas), optimizer.eps, optimizer.weight_decay, clip) == expected


@pytest.mark.by_recipe(
    {  # share of hidden tokens, steps, batch, rate, warm-up, interval of validations
        "spt": {
            "listops": (0.5, 300_000, 32, 1e-3, 2000, 3000),
            "text": (0.5, 32 * (25_000 // 32), 32, 1e-3, 5000, 781),
            "retrieval": (0.5, 147_072, 32, 1e-3, 2000, 4596),
            "image": (0.5, 50 * (45_000 // 32), 32, 1e-3, 2500, 703),
            "pathfinder": (0.5, 50 * (160_000 // 32), 32, 5e-4, 2500, 2500),
            "pathx": (0.5, 1_000_000, 32, 5e-4, 5000, 2500),
        },
        "skyformer": {  # says nothing of it: as the run itself
            "text": (0.5, 50_000, 32, 1e-4, 80, 500),
            "image": (0.5, 50_000, 256, 1e-4, 175, 500),
        },
    }
)
def test_what_comes_before(recipe, task, expected):
    cfg = compose(f"recipe={recipe}", f"task={task}", "attention=softmax", "pretrain=mlm")
    run = cfg.pretrain.run
    budget = (run.max_steps, run.batch_size, run.learning_rate, run.warmup_steps)
    assert (run.data.hidden_share, *budget, run.eval_interval) == expected
    assert run.trainer.max_steps == run.max_steps and run.data.batch_size == run.batch_size
    assert run.optimizer.weight_decay == cfg.optimizer.weight_decay
    assert run.model.encoder == cfg.model.encoder
