"""How a role is given an address, and how it answers a command."""

# A role has settled once nothing has changed for so many seconds.
SETTLED_AFTER = 0.5


def split(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def answer(identity, text):
    print(identity, text, flush=True)
