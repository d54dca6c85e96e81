"""Hyperparameters with which every head fits in about a second."""

from pathlib import Path

from heartml.core import config
from heartml.training import search_space

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml").search
HYPERPARAMETERS = {
    "logistic": {"c": 0.1, "balance": 1.0},
    "svm_rbf": {"c": 3.0, "gamma": 0.5, "balance": 0.5},
    "lightgbm": {"trees": 20, "leaves": 4, "rate": 0.2, "columns": 0.5, "least_cases": 5, "balance": 0.5},
    "extra_trees": {"trees": 20, "least_leaf": 1, "columns": 0.3, "balance": 0.5},
    "sequence": {**search_space.fixed_hyperparameters(PARAMS, "sequence"), "steps": 25, "batch": 16, "channels": 16,
                 "dropout": 0.1,
                 "rate": 1e-2, "frame_weight": 0.5, "strength": 0.5},
    "related": {**search_space.fixed_hyperparameters(PARAMS, "related"), "steps": 25, "batch": 16, "channels": 16,
                "dropout": 0.1, "rate": 1e-2, "frame_weight": 0.5, "strength": 0.5},
    "resnet": {**search_space.fixed_hyperparameters(PARAMS, "resnet"), "steps": 30, "batch": 16,
               "backbone": "test_resnet",
               "dropout": 0.1, "rate": 3e-3, "strength": 0.2},
    "fcnn": {**search_space.fixed_hyperparameters(PARAMS, "fcnn"), "steps": 40, "batch": 16, "dropout": 0.3,
             "rate": 3e-3},
    "finetune": {**search_space.fixed_hyperparameters(PARAMS, "finetune"), "epochs": 12, "batch": 12, "rate": 2e-2,
                 "chunk_s": 2.0, "inference_chunk_s": 2.0, "layer_decay": 1.0, "mask_bands": 2, "mask_frames": 10},
}
