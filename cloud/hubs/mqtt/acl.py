"""Access lists that isolate devices on a broker: what each broker reads, as text. Pure.

The user name is the certificate's common name, on every broker: a device may write what is its own `up`, and read what
is its own `down`. The coordinator's name has a dot, which no device's has.

Formats: mosquitto.conf(5), `acl_file`; EMQX, "Use ACL File" (Erlang terms, first match wins).
"""

from collections.abc import Callable, Mapping

from shared.hub.mqtt.topics import COORDINATOR, Topics


def mosquitto(fleet: str) -> str:
    """The file that `acl_file` names."""
    topics = Topics(fleet)
    return f"""\
# fleetlearn, fleet {fleet}. Needs: require_certificate true, use_identity_as_username true.
pattern write {topics.up("%u", "#")}
pattern read {topics.down("%u", "#")}

user {COORDINATOR}
topic read {topics.up("+", "#")}
topic write {topics.down("+", "#")}
"""


def emqx(fleet: str) -> str:
    """Rules for `acl.conf`, above `{deny, all}`."""
    topics = Topics(fleet)
    ups, downs = topics.up("+", "#"), topics.down("+", "#")
    return f"""\
%% fleetlearn, fleet {fleet}. Needs: verify_peer, fail_if_no_peer_cert, mqtt.peer_cert_as_username = cn.
{{allow, {{username, "{COORDINATOR}"}}, subscribe, ["{ups}", "$share/+/{ups}"]}}.
{{allow, {{username, "{COORDINATOR}"}}, publish, ["{downs}"]}}.
{{allow, all, publish, ["{topics.up("${username}", "#")}"]}}.
{{allow, all, subscribe, ["{topics.down("${username}", "#")}"]}}.
{{deny, all}}.
"""


ACL_BY_BROKER: Mapping[str, Callable[[str], str]] = {"mosquitto": mosquitto, "emqx": emqx}
