"""sklearnexample: A Flower / sklearn app."""

import warnings

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import log_loss

from sklearnexample.task import (
    create_log_reg_and_instantiate_parameters,
    get_model_parameters,
    load_data,
    set_model_params,
)

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""

    model = create_log_reg_and_instantiate_parameters(context.run_config["penalty"], context.run_config["local-epochs"])
    set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
    X_train, _, y_train, _ = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X_train, y_train)
    train_loss = log_loss(y_train, model.predict_proba(X_train))
    accuracy = model.score(X_train, y_train)

    metrics = {"num-examples": len(X_train), "train_logloss": train_loss, "train_accuracy": accuracy}
    content = RecordDict({"arrays": ArrayRecord(get_model_parameters(model)), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on test data."""

    model = create_log_reg_and_instantiate_parameters(context.run_config["penalty"], context.run_config["local-epochs"])
    set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
    _, X_test, _, y_test = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])

    metrics = {
        "num-examples": len(X_test),
        "test_logloss": log_loss(y_test, model.predict_proba(X_test), labels=[0, 1, 2]),
        "accuracy": model.score(X_test, y_test),
    }
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
