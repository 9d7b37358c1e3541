"""The session's decisions: what each packet leads to, without sockets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub import codec, session, topics

_USERNAME = "hub.local/press-07/?api-version=2021-04-12&DeviceClientType=py"


def _connected() -> session.Session:
    live = session.Session()
    live.receive(codec.Connect("press-07", clean_session=False, keep_alive_s=60, username=_USERNAME))
    live.accept({}, clean_session=False)
    return live


def _closes(effects: list[session.Effect]) -> bool:
    return any(isinstance(effect, session.Close) for effect in effects)


def test_a_connect_asks_for_a_proof_of_identity() -> None:
    live = session.Session()
    connect = codec.Connect("press-07", False, 60, _USERNAME, b"token")
    assert live.receive(connect) == [session.Authenticate("press-07", "hub.local", "token", False)]
    assert live.state is session.State.AUTHENTICATING


@pytest.mark.parametrize(
    ("connect", "code"),
    [
        (codec.Connect("press-07", username=_USERNAME, protocol_level=3), 1),
        (codec.Connect("press-08", username=_USERNAME), 2),
        (codec.Connect("press-07", username="hub.local/press-07"), 4),
        (codec.Connect("press-07", username="hub.local/press-07/?api-version=latest"), 4),
        (codec.Connect("press-07"), 4),
    ],
)
def test_a_connect_that_cannot_be_right_is_refused_with_its_code(connect: codec.Connect, code: int) -> None:
    effects = session.Session().receive(connect)
    assert effects[0] == session.Reply(codec.ConnAck(code))
    assert _closes(effects)


def test_a_module_connects_with_its_own_user_name_and_speaks_on_its_own_topics() -> None:
    live = session.Session()
    username = "hub.local/press-07/camera/?api-version=2021-04-12"
    effects = live.receive(codec.Connect("press-07/camera", username=username))
    assert effects == [session.Authenticate("press-07/camera", "hub.local", None, True)]
    live.accept({}, clean_session=True)
    topic = "devices/press-07/modules/camera/messages/events/a=1"
    assert live.receive(codec.Publish(topic, b"{}", 1, 7)) == [session.StoreEvent(7, {"a": "1"}, b"{}")]
    wanted = (("devices/press-07/messages/devicebound/#", 1), ("devices/press-07/modules/camera/inputs/#", 1))
    (kept,) = live.receive(codec.Subscribe(8, wanted))
    assert isinstance(kept, session.KeepSubscriptions)
    assert kept.reply == codec.SubAck(8, (0x80, 1))
    assert _closes(live.receive(codec.Publish("devices/press-07/messages/events/", b"")))


def test_an_acknowledgement_is_handed_on() -> None:
    assert _connected().receive(codec.PubAck(5)) == [session.Acknowledged(5)]


def test_anything_before_connect_closes() -> None:
    assert _closes(session.Session().receive(codec.PingReq()))


def test_a_second_connect_closes() -> None:
    assert _closes(_connected().receive(codec.Connect("press-07", username=_USERNAME)))


def test_telemetry_is_stored_with_its_properties_before_it_is_acknowledged() -> None:
    topic = "devices/press-07/messages/events/%24.ct=application%2Fjson&a=1&flag"
    effects = _connected().receive(codec.Publish(topic, b"{}", 1, 7))
    properties = {"$.ct": "application/json", "a": "1", "flag": None}
    assert effects == [session.StoreEvent(7, properties, b"{}")]


@pytest.mark.parametrize(
    "topic",
    [
        "devices/press-08/messages/events/",
        "devices/press-07x/messages/events/",
        "devices/press-07/messages/eventsx",
        "$iothub/methods/POST/reboot/?$rid=1",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/GET/",
        "$iothub/methods/res/ok/?$rid=1",
        "anything",
    ],
)
def test_a_publish_anywhere_else_closes(topic: str) -> None:
    assert _closes(_connected().receive(codec.Publish(topic, b"")))


def test_qos_2_closes() -> None:
    topic = "devices/press-07/messages/events/"
    assert _closes(_connected().receive(codec.Publish(topic, b"", 2, 1)))


def test_an_event_above_the_limit_closes() -> None:
    topic = "devices/press-07/messages/events/"
    assert _closes(_connected().receive(codec.Publish(topic, bytes(session.EVENT_BYTES_MAX))))


def test_subscriptions_are_granted_up_to_qos_1_and_others_refused() -> None:
    live = _connected()
    filters = ((topics.METHODS_FILTER, 2), ("devices/press-08/messages/devicebound/#", 1), ("#", 0))
    effects = live.receive(codec.Subscribe(9, filters))
    kept = {topics.METHODS_FILTER: 1}
    assert effects == [session.KeepSubscriptions(kept, codec.SubAck(9, (1, 0x80, 0x80)))]
    assert live.filters == kept


def test_a_sixth_subscription_closes() -> None:
    filters = tuple((f"filter/{number}", 1) for number in range(6))
    assert _closes(_connected().receive(codec.Subscribe(1, filters)))


def test_a_kept_session_comes_back_with_its_subscriptions() -> None:
    live = session.Session()
    live.receive(codec.Connect("press-07", clean_session=False, username=_USERNAME))
    kept = {topics.METHODS_FILTER: 1, "devices/press-08/messages/devicebound/#": 1}
    assert live.accept(kept, clean_session=False) == [session.Reply(codec.ConnAck(0, session_present=True))]
    assert live.filters == {topics.METHODS_FILTER: 1}


def test_a_will_goes_only_to_the_events_and_a_goodbye_discards_it() -> None:
    will = codec.Will("devices/press-07/messages/events/a=1", b"gone")
    live = session.Session()
    live.receive(codec.Connect("press-07", username=_USERNAME, will=will))
    live.accept({}, clean_session=True)
    assert live.will == session.StoreEvent(0, {"a": "1", "iothub-MessageType": "Will"}, b"gone")
    live.receive(codec.Disconnect())
    assert live.will is None
    elsewhere = codec.Connect("press-07", username=_USERNAME, will=codec.Will("elsewhere", b""))
    assert _closes(session.Session().receive(elsewhere))


def test_the_keep_alive_is_capped() -> None:
    live = session.Session()
    live.receive(codec.Connect("press-07", keep_alive_s=60_000, username=_USERNAME))
    assert live.keep_alive_s == session.KEEP_ALIVE_S_MAX


@given(
    st.sampled_from(["devices/press-07/messages/events/", "$iothub/twin/", "$iothub/methods/res/", ""]),
    st.text(max_size=80),
    st.binary(max_size=100),
    st.integers(0, 2),
)
def test_no_publish_makes_the_session_raise(prefix: str, rest: str, payload: bytes, qos: int) -> None:
    _connected().receive(codec.Publish(prefix + rest, payload, qos, min(qos, 1)))
