"""A mail receiver: aiosmtpd speaks SMTP, epolld is the daemon, mails end up in a Maildir.

The class of a library, written for asyncio, as a service: epolld gives it an event loop in each
worker. Needs aiosmtpd (`pip install aiosmtpd`).
"""

import asyncio
import mailbox
import socket
from concurrent.futures import ThreadPoolExecutor

from aiosmtpd.smtp import SMTP, Envelope, Session

HOSTNAME = socket.gethostname()  # else aiosmtpd asks the DNS, at each connection

# The disk is slow, so it is written to in a thread; in one, which is enough and keeps the order.
writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="maildir")


class Maildrop:
    """What aiosmtpd asks at each step of a mail."""

    def __init__(self, maildir: str, domains: list[str]) -> None:
        self._maildir = maildir
        self._domains = domains

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Mail for others is refused: this is no relay."""
        if address.rpartition("@")[2].lower() not in self._domains:
            return "550 5.7.1 we are not responsible for this domain"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """The answer is given when the mail is on the disk: from then on it is ours."""
        mail = mailbox.MaildirMessage(envelope.content)
        mail["Return-Path"] = f"<{envelope.mail_from}>"
        mail["Delivered-To"] = ", ".join(envelope.rcpt_tos)
        await asyncio.get_running_loop().run_in_executor(writer, self._store, mail)
        return "250 2.0.0 stored"

    def _store(self, mail: mailbox.MaildirMessage) -> None:
        mailbox.Maildir(self._maildir, create=True).add(mail)  # returns after the fsync


class Mail(SMTP):
    """One connection; aiosmtpd's class, with options that the YAML file can give."""

    def __init__(self, *, maildir: str, domains: list[str], max_size: int = 10_000_000) -> None:
        handler = Maildrop(maildir, domains)
        super().__init__(handler, hostname=HOSTNAME, ident="epolld", data_size_limit=max_size)
