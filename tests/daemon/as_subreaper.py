"""Runs a command as a child subreaper, as an init process would: orphans below become its."""

import ctypes
import os
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h; it survives execve

if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
    sys.exit("cannot become a subreaper")
os.execv(sys.argv[1], sys.argv[1:])
