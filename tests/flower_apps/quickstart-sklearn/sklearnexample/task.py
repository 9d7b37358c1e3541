"""sklearnexample: A Flower / sklearn app."""

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


def load_data(partition_id: int, num_partitions: int):
    iris = load_iris()
    X, y = iris.data[partition_id::num_partitions], iris.target[partition_id::num_partitions]
    split = len(X) * 4 // 5
    order = np.random.RandomState(0).permutation(len(X))
    X, y = X[order], y[order]
    return X[:split], X[split:], y[:split], y[split:]


def create_log_reg_and_instantiate_parameters(penalty: str, local_epochs: int):
    model = LogisticRegression(penalty=penalty, max_iter=local_epochs, warm_start=True, solver="saga")
    set_initial_params(model)
    return model


def get_model_parameters(model):
    return [model.coef_, model.intercept_]


def set_model_params(model, params):
    model.coef_, model.intercept_ = params[0], params[1]
    return model


def set_initial_params(model):
    model.classes_ = np.arange(3)
    model.coef_, model.intercept_ = np.zeros((3, 4)), np.zeros((3,))
