# SPDX-License-Identifier: Apache-2.0
"""Deliveries as an attacker makes them: out of genuine ones, which anybody between the two sides may have seen."""

import hashlib
import hmac
import json
from dataclasses import dataclass, replace

from hypothesis import strategies as st

SECRET = "whsec_of_the_tenant"
NOW = 1_775_745_000


@dataclass(frozen=True)
class Delivery:
    """An arriving delivery: the header pairs as bytes of the wire, and the body."""

    stamp: bytes
    signature: bytes
    body: bytes
    more: tuple[tuple[str, str], ...] = ()
    names: tuple[str, str] = ("X-UGen-Timestamp", "X-UGen-Signature")

    @property
    def headers(self) -> list[tuple[str, str]]:
        one, two = self.names
        return [(one, self.stamp.decode("latin-1")), (two, self.signature.decode("latin-1")), *self.more]


def genuine(number: int, *, stamp: str = str(NOW), secret: str = SECRET) -> Delivery:
    """As the service makes one. Signed here by the documentation's words, not by our own code."""
    body = json.dumps({"event": "job.completed", "job_id": f"job_{number}", "status": "completed"}).encode()
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return Delivery(stamp.encode(), digest.encode(), body)


SEEN = (
    genuine(1),
    genuine(2, stamp=f"{NOW}.5"),
    genuine(3, stamp="2026-04-09T14:30:00Z"),
    genuine(4, stamp=str(NOW * 1000)),
    genuine(5, stamp=str(NOW - 3600)),
)
"""Deliveries that an attacker has seen: the last is too old by now."""

GOOD = frozenset((seen.stamp, seen.body) for seen in SEEN[:-1])
"""Deliveries that may be believed; only the service can have signed them."""


@st.composite
def mutated_bytes(draw: st.DrawFn, raw: bytes) -> bytes:
    """A few bytes of it changed, put in, taken out, doubled or moved."""
    data = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["set", "insert", "delete", "double", "flip case", "cut", "append"])):
            case "set" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "delete":
                del data[at : at + draw(st.integers(1, 8))]
            case "double":
                data[at:at] = data[at : at + 8]
            case "flip case" if at < len(data):
                data[at : at + 1] = bytes(data[at : at + 1]).swapcase()
            case "cut":
                del data[at:]
            case "append":
                data += draw(st.sampled_from([b"\n", b"\x00", b"}", b", ", b"=", b";"]))
            case _:
                pass
    return bytes(data)


STAMPS = st.sampled_from(
    [b"", b"0", b"-1", b"nan", b"inf", b"-inf", b"1e308", b"1e10", b"0x69d7b668", b"NaN", b"now", b"9" * 400,
     b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00", b"2026-04-09", b"2026-W15-4", b"1_775_745_000",
     str(NOW + 1).encode(), str(NOW + 300).encode(), f"{NOW}.0".encode(), f"+{NOW}".encode(), f"0{NOW}".encode()]
)  # fmt: skip
SIGNATURES = st.sampled_from(
    [b"", b"0" * 64, b"sha256=", b",", b"," * 500, b"none", b"null", b"true", b"\xff" * 64, b"=" * 64, b"a" * 70_000]
)


@st.composite
def forged(draw: st.DrawFn) -> Delivery:
    """An unsigned delivery: one that was seen, with one part changed."""
    base = draw(st.sampled_from(SEEN))
    other = draw(st.sampled_from(SEEN))
    for _ in range(draw(st.integers(1, 2))):
        match draw(st.integers(0, 9)):
            case 0 | 1:
                base = replace(base, body=draw(mutated_bytes(base.body)))
            case 2:
                base = replace(base, stamp=draw(st.one_of(STAMPS, mutated_bytes(base.stamp))))
            case 3:
                base = replace(base, signature=draw(st.one_of(SIGNATURES, mutated_bytes(base.signature))))
            case 4:
                base = replace(base, signature=other.signature)
            case 5:
                base = replace(base, body=other.body, stamp=draw(st.sampled_from([base.stamp, other.stamp])))
            case 6:
                # The signature covers stamp, dot, body: the same bytes, parted elsewhere.
                signed = base.stamp + b"." + base.body
                at = draw(st.sampled_from([n for n, byte in enumerate(signed) if byte == ord(".")]))
                base = replace(base, stamp=signed[:at], body=signed[at + 1 :])
            case 7:
                name = draw(st.sampled_from(["X-UGen-Signature", "x-ugen-signature", "X-UGEN-TIMESTAMP"]))
                value = draw(st.sampled_from([*SEEN])).signature.decode()
                base = replace(base, more=((name, value),))
            case 8:
                names = st.sampled_from(["X-UGen-Timestamp", "X-UGen-Signature", "X_UGen_Signature", "Signature"])
                base = replace(base, names=(draw(names), draw(names)))
            case _:
                base = genuine(draw(st.integers(1, 9)), stamp=base.stamp.decode("latin-1"), secret="whsec_of_another")
    return base
