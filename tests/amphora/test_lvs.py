"""What the agent reads of LVS, and leaves out of what it is told. LVS itself: tests/integration/places, in a machine."""

import pytest

from frontinus_amphora.lvs import Counted, active_sessions, parse_services, without
from frontinus_amphora.lvs_machine import table_settings

TEXT = """virtual_server 10.0.0.5 53 { # listener
    protocol UDP
    real_server 10.0.1.1 53 { # pool/one
        weight 1
    }
    real_server 10.0.1.2 53 { # pool/two
        weight 1
    }
}
"""


def test_a_member_that_shall_get_nothing_is_left_out() -> None:
    assert without(TEXT, ["pool/two", "other/one"]) == TEXT.replace(
        "    real_server 10.0.1.2 53 { # pool/two\n        weight 1\n    }\n", ""
    )


def test_counters_are_read_by_service() -> None:
    text = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
UDP  10.0.0.5:53                         3        4        5      600      700
  -> 10.0.1.1:53                         3        4        5      600      700
SCTP [fd00::5]:53                        1        1        1       10       20
"""
    assert parse_services(text) == {
        ("UDP", "10.0.0.5", 53): Counted(3, 600, 700),
        ("SCTP", "fd00::5", 53): Counted(1, 10, 20),
    }


def test_sessions_are_read_by_service() -> None:
    table = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
UDP  0A000005:0035 wrr
  -> 0A000102:0035      Masq    1      0          2
  -> 0A000101:0035      Masq    1      1          3
UDP  [fd00:0000:0000:0000:0000:0000:0000:0005]:0035 wrr
  -> [fd00:0000:0000:0000:0000:0000:0000:0006]:0035      Masq    1      0          1
TCP  0A000005:0035 wrr
"""
    assert active_sessions(table) == {("UDP", "10.0.0.5", 53): 6, ("UDP", "fd00::5", 53): 1}


@pytest.mark.parametrize(
    "memory_mib, most, buckets",
    [
        pytest.param(32, 8_192, 4_096, id="hardly any"),
        pytest.param(256, 43_690, 22_016, id="a small machine"),
        pytest.param(4_096, 699_050, 349_696, id="a large one"),
    ],
)
def test_there_is_room_for_sessions_by_memory(memory_mib: int, most: int, buckets: int) -> None:
    assert table_settings(memory_mib * 1024, TEXT) == {
        "net/netfilter/nf_conntrack_buckets": str(buckets),
        "net/netfilter/nf_conntrack_max": str(most),
    }


def test_a_session_is_followed_for_as_long_as_it_is_remembered() -> None:
    settings = table_settings(1 << 20, "global_defs {\n    lvs_timeouts udp 50\n}\n" + TEXT)
    followed = {name: value for name, value in settings.items() if "udp" in name}
    assert followed == {
        "net/netfilter/nf_conntrack_udp_timeout": "60",
        "net/netfilter/nf_conntrack_udp_timeout_stream": "60",
    }
