"""legacynumpy: a server_fn."""

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp


class SavingFedAvg(FedAvg):
    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        np.savez("result.npz", *parameters_to_ndarrays(parameters))
        return parameters, metrics


def server_fn(context: Context):
    strategy = SavingFedAvg(initial_parameters=ndarrays_to_parameters([np.zeros(3)]))
    return ServerAppComponents(
        strategy=strategy, config=ServerConfig(num_rounds=context.run_config["num-server-rounds"])
    )


app = ServerApp(server_fn=server_fn)
