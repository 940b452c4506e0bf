"""select takes three sets of bits, for descriptors 0 to 1023; poll and epoll take numbers."""

import os
import select

with open("/dev/zero") as file:
    for number in (1023, 1024):
        os.dup2(file.fileno(), number)
        try:
            print(
                f"select on descriptor {number}:", len(select.select([number], [], [])[0]), "ready"
            )
        except ValueError as error:
            print(f"select on descriptor {number}:", error)

    poll = select.poll()
    poll.register(1024, select.POLLIN)
    print("poll on descriptor 1024:", len(poll.poll()), "ready")
