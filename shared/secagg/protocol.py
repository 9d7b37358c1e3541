"""What both sides compute alike: the graph of a roster, and the masks of a pair."""

from shared.secagg.fixed_point import Words
from shared.secagg.graph import Topology, neighbours_of, topology
from shared.secagg.messages import Roster, Terms
from shared.secagg.secrets import agreed_key
from shared.secagg.secrets import mask as mask_words


def topology_of(terms: Terms, roster: Roster) -> Topology:
    return topology(len(roster), corrupt_share=terms.corrupt_share, dropout_share=terms.dropout_share)


def pair_seed(terms: Terms, private: bytes, public: bytes) -> bytes:
    """The seed of the mask that two neighbours share."""
    return agreed_key(private, public, purpose=f"mask {terms.digest.hex()}")


def signed_pair_mask(seed: bytes, *, length: int, mine: int, other: int) -> Words:
    """What the one adds and the other takes away, modulo 2**32."""
    words = mask_words(seed, length)
    return words if mine < other else -words


def neighbours(terms: Terms, roster: Roster, position: int) -> tuple[int, ...]:
    """Positions of a device's neighbours, ascending."""
    degree = topology_of(terms, roster).degree
    return neighbours_of(position, clients=len(roster), degree=degree, roster_digest=roster.digest)
