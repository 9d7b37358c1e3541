"""One codec, two faces: bytes of one update for the wire, and the round trip of a cohort's rows for a simulation.

Both meet in `Sent`, so that a simulation computes what devices would send, to the bit, for the same seeds:

    codec = Codec(Compression.parse("top-k=0.01+int8"), layout)
    payload = codec.encode(delta, seed=seed)            # a device
    delta = decode(payload, layout)                     # the coordinator, which knows no more than the model
    deltas = codec.round_trip(deltas, seeds)            # a simulation; each client would have sent `codec.size_bytes`

The size of a payload follows from the compression and the layout alone. A payload names its compression, and is
refused with the reason unless it is exactly what that compression writes for this layout.

Seeds are any 64-bit integers; one seed always gives the same bytes. Never reuse one for another update.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.compression import positions, random_k, wire
from shared.compression.draws import derived, seed_tensor
from shared.compression.errors import MalformedPayloadError, UnencodableError, UnknownCompressionError
from shared.compression.low_rank import Factoring
from shared.compression.numbers import FORMATS, Written
from shared.compression.settings import Compression, Travels
from shared.compression.top_k import largest
from shared.layout import Layout

if TYPE_CHECKING:
    import torch

_MASK, _DITHER, _START = range(3)
"""Purposes of a seed: positions, rounding, the first factor of a low rank."""
_SEED_BYTES = 8


@dataclass(frozen=True)
class Sent:
    """What travels of some clients' updates."""

    written: Written
    places: "torch.Tensor | None" = None
    """Where the numbers belong, `(clients, numbers)` int64; None where all or factors travel."""
    masks: "torch.Tensor | None" = None
    """The seeds that `places` follow from, `(clients,)` int64, for `random-k`."""


class Codec:
    """One compression of the updates of one model.

    Args:
        compression: What is asked for.
        layout: Of the trained parameters.
    """

    def __init__(self, compression: Compression, layout: Layout) -> None:
        self.compression = compression
        self.layout = layout
        self._format = FORMATS[compression.number]
        self._factoring = Factoring(layout, compression.rank) if compression.rank else None

    @property
    def numbers(self) -> int:
        """How many numbers travel, at least one."""
        if self._factoring is not None:
            return self._factoring.numbers
        return self.compression.numbers_of(self.layout.size)

    @property
    def size_bytes(self) -> int:
        """Bytes of a payload, always the same."""
        return wire.head_bytes(self.compression.wire_name) + self._places_bytes + self._format.size_bytes(self.numbers)

    def encode(self, delta: "torch.Tensor", *, seed: int, mask: int | None = None) -> bytes:
        """The payload of one update `(parameters,)`; `mask` is the seed of a whole cohort's positions.

        Raises UnencodableError for NaN, infinity or another length.
        """
        masks = None if mask is None else seed_tensor(mask)
        return self.to_bytes(self.send(self.checked(delta)[None], seed_tensor(seed), masks=masks))

    def checked(self, delta: "torch.Tensor") -> "torch.Tensor":
        """The update, fit to be sent. Raises UnencodableError."""
        if delta.shape != (self.layout.size,) or not self.layout.size:
            raise UnencodableError(f"Expected an update of {self.layout.size} numbers, got shape {tuple(delta.shape)}")
        if not bool(_are_finite(delta[None])):
            raise UnencodableError("Expected finite numbers to send, got NaN or infinity")
        return delta

    def round_trip(
        self, deltas: "torch.Tensor", seeds: "torch.Tensor", *, masks: "torch.Tensor | None" = None
    ) -> "torch.Tensor":
        """What a receiver would decode, `(clients, parameters)` float32; a row with NaN or infinity becomes NaN."""
        if self.compression.is_lossless:
            return deltas
        received = self.receive(self.send(deltas, seeds, masks=masks))
        return received.masked_fill_(~_are_finite(deltas)[:, None], float("nan"))

    def send(self, deltas: "torch.Tensor", seeds: "torch.Tensor", *, masks: "torch.Tensor | None" = None) -> Sent:
        """What travels of updates `(clients, parameters)` float32.

        Args:
            deltas: Unchanged.
            seeds: `(clients,)` int64, on the same device.
            masks: Seeds of `random-k` positions in place of the clients' own, such as one for a whole cohort.
        """
        dithering = derived(seeds, _DITHER)
        match self.compression.travels:
            case Travels.ALL:
                return Sent(self._format.write(deltas, dithering))
            case Travels.LOW_RANK:
                assert self._factoring is not None
                factors = self._factoring.shrink(deltas, derived(seeds, _START))
                return Sent(self._format.write(factors, dithering))
            case Travels.TOP_K:
                places = largest(deltas, self.numbers)
                return Sent(self._format.write(deltas.gather(1, places), dithering), places)
            case Travels.RANDOM_K:
                masks = derived(seeds, _MASK) if masks is None else masks
                places = self._masked(masks)
                values = deltas.gather(1, places)
                if not self.compression.has_feedback:
                    values *= random_k.spread_factors(masks, k=self.numbers, parameters=self.layout.size)
                return Sent(self._format.write(values, dithering), places, masks)

    def receive(self, sent: Sent) -> "torch.Tensor":
        """The updates that this stands for, `(clients, parameters)` float32."""
        values = self.values(sent)
        if self._factoring is not None:
            return self._factoring.expand(values)
        if sent.places is None:
            return values
        return values.new_zeros((len(values), self.layout.size)).scatter_(1, sent.places, values)

    def values(self, sent: Sent) -> "torch.Tensor":
        """The numbers that travel, `(clients, numbers)` float32."""
        return self._format.read(sent.written)

    def to_bytes(self, sent: Sent) -> bytes:
        """The payload of one client."""
        (codes,), (scales,) = sent.written.codes.cpu(), sent.written.scales.cpu()
        places = b""
        if sent.masks is not None:
            places = int(sent.masks[0]).to_bytes(_SEED_BYTES, "little", signed=True)
        elif sent.places is not None:
            places = positions.pack(sent.places[0].cpu().numpy(), parameters=self.layout.size)
        head = wire.head(self.compression.wire_name, parameters=self.layout.size)
        return b"".join((head, places, wire.pack_floats(scales), wire.pack_codes(codes, self.compression.number)))

    def from_bytes(self, body: memoryview) -> Sent:
        """What `to_bytes` was given, from the payload without its head. Raises MalformedPayloadError."""
        expected = self._places_bytes + self._format.size_bytes(self.numbers)
        if len(body) != expected:
            raise MalformedPayloadError(f"Expected {expected} bytes of {self.compression.wire_name}, got {len(body)}")
        places, masks = self._unpack_places(body[: self._places_bytes])
        scales_end = self._places_bytes + 4 * self._format.blocks(self.numbers)
        scales = wire.unpack_floats(body[self._places_bytes : scales_end])
        codes = wire.unpack_codes(body[scales_end:], self.compression.number, count=self.numbers)
        return Sent(Written(codes[None], scales[None]), places, masks)

    @property
    def _places_bytes(self) -> int:
        match self.compression.travels:
            case Travels.TOP_K:
                return positions.size_bytes(self.numbers, parameters=self.layout.size)
            case Travels.RANDOM_K:
                return _SEED_BYTES
            case _:
                return 0

    def _masked(self, masks: "torch.Tensor") -> "torch.Tensor":
        return random_k.positions(masks, k=self.numbers, parameters=self.layout.size)

    def _unpack_places(self, packed: memoryview) -> tuple["torch.Tensor | None", "torch.Tensor | None"]:
        import torch

        match self.compression.travels:
            case Travels.TOP_K:
                found = positions.unpack(packed, count=self.numbers, parameters=self.layout.size)
                return torch.from_numpy(found)[None], None
            case Travels.RANDOM_K:
                masks = seed_tensor(int.from_bytes(packed, "little"))
                return self._masked(masks), masks
            case _:
                return None, None


def decode(payload: bytes, layout: Layout) -> "torch.Tensor":
    """The update `(parameters,)` float32 in a payload of whatever compression.

    Memory is a few times what the layout and the payload take, whatever the payload says.

    Raises:
        MalformedPayloadError: Not exactly what the compression it names writes for this layout, or not finite.
    """
    codec, sent = _read(payload, layout)
    return _finite(codec.receive(sent)[0])


def sent_values(payload: bytes, layout: Layout) -> "torch.Tensor":
    """The numbers that travel in a payload, `(numbers,)`, without their places. Raises MalformedPayloadError."""
    codec, sent = _read(payload, layout)
    return _finite(codec.values(sent)[0])


def _read(payload: bytes, layout: Layout) -> tuple[Codec, Sent]:
    name, parameters, body = wire.split(payload)
    if parameters != layout.size:
        raise MalformedPayloadError(f"Expected an update of {layout.size} numbers, got one of {parameters}")
    codec = Codec(_named(name), layout)
    return codec, codec.from_bytes(body)


def _finite(values: "torch.Tensor") -> "torch.Tensor":
    if not bool(_are_finite(values[None])):
        raise MalformedPayloadError("Expected finite numbers, got NaN or infinity")
    return values


def _named(name: str) -> Compression:
    try:
        compression = Compression.parse(name)
    except UnknownCompressionError as error:
        raise MalformedPayloadError(error.message) from error
    if compression.wire_name != name:
        raise MalformedPayloadError(f"Expected the compression as {compression.wire_name!r}, got {name!r}")
    return compression


def _are_finite(rows: "torch.Tensor") -> "torch.Tensor":
    """Which rows are finite, `(clients,)` bool. A finite sum says so at a tenth of the cost of looking at each."""
    by_sum: torch.Tensor = rows.sum(1).isfinite()
    return by_sum if bool(by_sum.all()) else rows.isfinite().all(dim=1)
