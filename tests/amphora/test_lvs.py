"""What the agent reads of LVS, and leaves out of what it is told. LVS itself: tests/integration/places, in a machine."""

from frontinus_amphora.lvs import Counted, active_sessions, parse_services, without

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
