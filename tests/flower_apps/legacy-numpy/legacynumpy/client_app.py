"""legacynumpy: a NumPyClient."""

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class FlowerClient(NumPyClient):
    def __init__(self, by):
        self.by = by

    def get_parameters(self, config):
        return [np.zeros(3)]

    def fit(self, parameters, config):
        return [array + self.by for array in parameters], self.by, {}

    def evaluate(self, parameters, config):
        return float(parameters[0].sum()), 1, {"first": float(parameters[0][0])}


def client_fn(context: Context):
    return FlowerClient(context.node_config["partition-id"] + 1).to_client()


app = ClientApp(client_fn=client_fn)
