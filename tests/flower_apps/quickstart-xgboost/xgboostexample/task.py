"""xgboostexample: A Flower / XGBoost app."""

import xgboost as xgb
from sklearn.datasets import load_breast_cancer


def load_data(partition_id: int, num_partitions: int):
    data = load_breast_cancer()
    X, y = data.data[partition_id::num_partitions], data.target[partition_id::num_partitions]
    split = len(X) * 4 // 5
    train, valid = xgb.DMatrix(X[:split], label=y[:split]), xgb.DMatrix(X[split:], label=y[split:])
    return train, valid, split, len(X) - split


def replace_keys(input_dict, match="-", target="_"):
    """Recursively replace match string with target string in dictionary keys."""
    new_dict = {}
    for key, value in input_dict.items():
        new_dict[key.replace(match, target)] = replace_keys(value, match, target) if isinstance(value, dict) else value
    return new_dict
