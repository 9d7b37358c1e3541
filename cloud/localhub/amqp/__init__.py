"""AMQP 1.0, as much of it as Event Hubs consumers speak: types, frames, one connection, and the door."""
