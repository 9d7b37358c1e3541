"""A summary of a run with two devices, for tests that need one."""

from simulations.demo.summary import Accuracies, DeviceFigures, Latency, Summary, WaveFigures


def summary(*, disturbed: bool = True) -> Summary:
    """Figures of a short run; without a disturbed device where a task shows none."""
    names = ("watch-1", "watch-2")
    return Summary(
        task="digits",
        devices=[
            DeviceFigures(
                device_id=name,
                slices=["block-0", "block-2"],
                units=160,
                epsilon=7.99,
                epsilon_limit=10,
                agent_rss_mib=111.6,
                release_state="active",
            )
            for name in names
        ],
        rounds=2,
        accuracy=Accuracies(base=0.73, federated=0.8, int8=0.79, served=0.79, without_noise=0.81, in_one_place=0.87),
        validation_accuracy_per_round=[0.7, 0.8, 0.85],
        epsilon_asked=8,
        delta=1e-5,
        privacy_unit="example",
        bytes_down_per_round=20_000,
        bytes_up_per_round=20_000,
        fp32_bytes=10_285,
        int8_bytes=6_101,
        latency=Latency(json_p50_ms=1.1, json_p99_ms=3.5, binary_p50_ms=0.7, binary_p99_ms=2.4),
        waves=[WaveFigures(number=1, devices=["watch-1"], state="healthy", seconds=4.2)],
        alerts=[],
        drift={name: {"ink": 2.0 if name == "watch-2" else 0.1} for name in names},
        disturbed_device="watch-2" if disturbed else None,
        disturbed_feature="ink" if disturbed else None,
        step_seconds={"Enrol the devices": 5.0},
        data_dir="/tmp/demo-data",
        picture="/tmp/demo-data/demo.png",
    )
