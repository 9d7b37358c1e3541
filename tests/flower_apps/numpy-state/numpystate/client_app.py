"""numpystate: each client adds its partition's number, and counts what it did in its own state."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    seen = context.state["seen"]["count"] + 1 if "seen" in context.state else 1
    context.state["seen"] = MetricRecord({"count": seen})
    if msg.content["config"]["fail-at"] == seen:
        raise RuntimeError("Out of coffee")
    by = context.node_config["partition-id"] + 1
    arrays = ArrayRecord([array + by for array in msg.content["arrays"].to_numpy_ndarrays()])
    metrics = MetricRecord({"num-examples": by, "seen": seen})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.query("how_many")
def how_many(msg: Message, context: Context):
    seen = context.state["seen"]["count"]
    return Message(content=RecordDict({"metrics": MetricRecord({"seen": seen})}), reply_to=msg)
