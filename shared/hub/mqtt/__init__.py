"""What both ends of a plain MQTT broker agree on: its address, the topics, and the connection to it."""
