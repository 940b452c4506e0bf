"""What ps shows."""

import os
import subprocess
import sys

from epolld.host.proctitle import master_title, worker_title


def test_worker_title_with_state():
    assert worker_title("epolld", 2, 3, "draining") == "epolld: worker 2 gen 3 (draining)"


def test_worker_title_without_state():
    assert worker_title("mail", 0, 1) == "mail: worker 0 gen 1"


def test_master_title():
    assert master_title("epolld") == "epolld: master"


def test_set_title_shows_in_proc():
    code = (
        "from epolld.host.proctitle import set_title\n"
        "set_title('epolld: worker 2 gen 3 (draining)')\n"
        "print(open('/proc/self/cmdline').read().rstrip('\\0'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "epolld: worker 2 gen 3 (draining)"


def test_import_is_lazy():
    code = "import sys, epolld.host.proctitle; sys.exit('setproctitle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0
