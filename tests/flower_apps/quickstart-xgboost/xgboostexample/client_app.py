"""xgboostexample: A Flower / XGBoost app."""

import warnings

import numpy as np
import xgboost as xgb
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.config import unflatten_dict

from xgboostexample.task import load_data, replace_keys

warnings.filterwarnings("ignore", category=UserWarning)

app = ClientApp()


def _local_boost(bst_input, num_local_round, train_dmatrix):
    for _ in range(num_local_round):
        bst_input.update(train_dmatrix, bst_input.num_boosted_rounds())
    # Bagging: extract the last N=num_local_round trees for server aggregation
    return bst_input[bst_input.num_boosted_rounds() - num_local_round : bst_input.num_boosted_rounds()]


@app.train()
def train(msg: Message, context: Context) -> Message:
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    train_dmatrix, _, num_train, _ = load_data(partition_id, num_partitions)

    cfg = replace_keys(unflatten_dict(context.run_config))
    num_local_round = cfg["local_epochs"]
    params = cfg["params"]

    global_round = msg.content["config"]["server-round"]
    if global_round == 1:
        bst = xgb.train(params, train_dmatrix, num_boost_round=num_local_round)
    else:
        bst = xgb.Booster(params=params)
        global_model = bytearray(msg.content["arrays"]["0"].numpy().tobytes())
        bst.load_model(global_model)
        bst = _local_boost(bst, num_local_round, train_dmatrix)

    local_model = bst.save_raw("json")
    model_np = np.frombuffer(local_model, dtype=np.uint8)
    model_record = ArrayRecord([model_np])
    metric_record = MetricRecord({"num-examples": num_train})
    return Message(content=RecordDict({"arrays": model_record, "metrics": metric_record}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    _, valid_dmatrix, _, num_val = load_data(partition_id, num_partitions)

    cfg = replace_keys(unflatten_dict(context.run_config))
    bst = xgb.Booster(params=cfg["params"])
    bst.load_model(bytearray(msg.content["arrays"]["0"].numpy().tobytes()))

    wrong = float(((bst.predict(valid_dmatrix) > 0.5) != valid_dmatrix.get_label()).mean())
    metric_record = MetricRecord({"error": wrong, "num-examples": num_val})
    return Message(content=RecordDict({"metrics": metric_record}), reply_to=msg)
