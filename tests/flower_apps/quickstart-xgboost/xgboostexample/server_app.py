"""xgboostexample: A Flower / XGBoost app."""

import numpy as np
import xgboost as xgb
from flwr.app import ArrayRecord, Context
from flwr.common.config import unflatten_dict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging

from xgboostexample.task import replace_keys

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    num_rounds = context.run_config["num-server-rounds"]
    fraction_evaluate = context.run_config["fraction-evaluate"]
    cfg = replace_keys(unflatten_dict(context.run_config))
    params = cfg["params"]

    # Init global model; it will be replaced by the aggregated model after the first round
    global_model = b""
    arrays = ArrayRecord([np.frombuffer(global_model, dtype=np.uint8)])

    strategy = FedXgbBagging(fraction_train=1.0, fraction_evaluate=fraction_evaluate)
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=num_rounds)

    bst = xgb.Booster(params=params)
    bst.load_model(bytearray(result.arrays["0"].numpy().tobytes()))
    print("\nSaving final model to disk...")
    bst.save_model("final_model.json")
