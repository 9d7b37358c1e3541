"""A local hub that speaks Azure IoT Hub's wire protocol; self-contained, imports nothing else of ours."""
