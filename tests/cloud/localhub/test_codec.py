"""Laws of the MQTT codec: what is encoded decodes to itself, however it is cut; arbitrary bytes never crash it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub import codec
from cloud.localhub.errors import MqttError

_LIMIT = 100_000
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
_topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=60)
_ids = st.integers(1, 65_535)
_qos = st.integers(0, 2)
_wills = st.builds(codec.Will, _texts, st.binary(max_size=200), _qos, st.booleans())


@st.composite
def _publishes(draw: st.DrawFn) -> codec.Publish:
    qos = draw(_qos)
    packet_id = draw(_ids) if qos else 0
    payload = draw(st.binary(max_size=2000))
    return codec.Publish(draw(_topics), payload, qos, packet_id, draw(st.booleans()), draw(st.booleans()))


_packets: st.SearchStrategy[codec.Packet] = st.one_of(
    st.builds(
        codec.Connect,
        client_id=_texts,
        clean_session=st.booleans(),
        keep_alive_s=st.integers(0, 65_535),
        username=st.none() | _texts,
        password=st.none() | st.binary(max_size=200),
        will=st.none() | _wills,
        protocol_level=st.integers(0, 255),
    ),
    st.builds(codec.ConnAck, st.integers(0, 255), st.booleans()),
    _publishes(),
    st.builds(codec.PubAck, _ids),
    st.builds(codec.Subscribe, _ids, st.lists(st.tuples(_texts, _qos), min_size=1, max_size=5).map(tuple)),
    st.builds(codec.SubAck, _ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), max_size=5).map(tuple)),
    st.builds(codec.Unsubscribe, _ids, st.lists(_texts, min_size=1, max_size=5).map(tuple)),
    st.builds(codec.UnsubAck, _ids),
    st.just(codec.PingReq()),
    st.just(codec.PingResp()),
    st.just(codec.Disconnect()),
)


@given(st.lists(_packets, max_size=5), st.data())
def test_packets_survive_the_wire_however_it_cuts_them(packets: list[codec.Packet], data: st.DataObject) -> None:
    stream = b"".join(map(codec.encode, packets))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = codec.Decoder(packet_bytes_max=_LIMIT)
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [packet for piece in pieces for packet in decoder.feed(piece)] == packets


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_packets_or_an_error_of_ours(data: bytes) -> None:
    decoder = codec.Decoder(packet_bytes_max=_LIMIT)
    try:
        packets = list(decoder.feed(data))
    except MqttError:
        return
    for packet in packets:
        assert list(codec.Decoder(packet_bytes_max=_LIMIT).feed(codec.encode(packet))) == [packet]


@given(_packets, st.data())
def test_a_packet_with_a_flipped_bit_is_a_packet_or_an_error_of_ours(packet: codec.Packet, data: st.DataObject) -> None:
    damaged = bytearray(codec.encode(packet))
    position = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[position // 8] ^= 1 << position % 8
    with contextlib.suppress(MqttError):
        list(codec.Decoder(packet_bytes_max=_LIMIT).feed(bytes(damaged)))


def test_a_packet_above_the_limit_is_refused_by_its_header_alone() -> None:
    header = codec.encode(codec.Publish("a", bytes(2000)))[:3]
    with pytest.raises(MqttError, match="at most 1000 bytes"):
        list(codec.Decoder(packet_bytes_max=1000).feed(header))


def test_a_length_that_never_ends_is_refused() -> None:
    with pytest.raises(MqttError):
        list(codec.Decoder(packet_bytes_max=1000).feed(b"\x30\xff\xff\xff\xff\xff"))


@pytest.mark.parametrize(
    "wire",
    [
        "3001",  # incomplete: nothing yet
        "10 0c 0004 4d515454 04 02 003c 0000".replace(" ", ""),
    ],
)
def test_known_bytes_decode(wire: str) -> None:
    packets = list(codec.Decoder(packet_bytes_max=1000).feed(bytes.fromhex(wire)))
    assert packets in ([], [codec.Connect("", keep_alive_s=60)])


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("3603000161", "QoS 0, 1 or 2"),  # QoS 3
        ("30030001 2b", "wildcards"),
        ("32050001610000", "packet id"),
        ("8206000100016103", "requested QoS"),
        ("82020001", "at least one topic filter"),
        ("80060001000161 00", "header flags"),
        ("100d00044d5154540403003c000161", "reserved CONNECT flag"),
        ("c00100", "packet to end"),
        ("50020001", "packet type 5"),
        ("30040002c328", "UTF-8"),
    ],
)
def test_what_breaks_the_standard_is_refused_with_the_reason(wire: str, why: str) -> None:
    with pytest.raises(MqttError, match=why):
        list(codec.Decoder(packet_bytes_max=1000).feed(bytes.fromhex(wire.replace(" ", ""))))
