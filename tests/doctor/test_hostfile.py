"""The hostfile: read as the deepspeed launcher reads it, and refused in one sentence where that would stop."""

import pytest

from refiner_ds.doctor.hostfile import Place, parse_hostfile, read_hostfile
from refiner_ds.errors import UserError


def test_hosts_keep_their_order_and_comments_and_blank_lines_do_not_count():
    text = "# ours\n\nnode1 slots=8  # fast\n  user@node0   slots=4\n"
    assert parse_hostfile(text, "hostfile") == (Place("node1", 8), Place("user@node0", 4))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node0 slots=8\nnode1\n", "line 2: 'node1' is not a host with its slots"),
        ("node0 slots=eight\n", "line 1: 'node0 slots=eight' is not a host with its slots"),
        ("-oProxyCommand=x slots=1\n", "is not a host with its slots"),
        ("node0 slots=0\n", "node0 has 0 slots, so nothing would run there"),
        ("node0 slots=1\nnode0 slots=2\n", "line 2: node0 is named twice"),
        ("# nobody\n", "names no host"),
    ],
)
def test_a_line_that_the_launcher_does_not_understand_is_refused_by_its_number(text, words):
    with pytest.raises(UserError, match="--hostfile hosts") as caught:
        parse_hostfile(text, "hosts")
    assert words in str(caught.value) and "; " in str(caught.value)


def test_a_hostfile_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\), so no host is known; write"):
        read_hostfile(tmp_path / "none")
