"""The cloud's end of any MQTT broker: the coordinator keeps what a broker does not."""
