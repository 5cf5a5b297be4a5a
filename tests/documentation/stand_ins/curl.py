"""What the pages ask of curl, for machines that have none: HTTP to loopback, and none of its other thousand options."""

from __future__ import annotations

import argparse
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode


def parser() -> argparse.ArgumentParser:
    """The options that are known here."""
    found = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    for short, long in (("s", "silent"), ("S", "show-error"), ("N", "no-buffer"), ("i", "include"), ("f", "fail")):
        found.add_argument(f"-{short}", f"--{long}", action="store_true")
    found.add_argument("--fail-with-body", action="store_true")
    found.add_argument("-X", "--request")
    found.add_argument("-H", "--header", action="append", default=[])
    found.add_argument("-d", "--data", "--data-binary", "--json", dest="data")
    found.add_argument("-G", "--get", action="store_true")
    found.add_argument("--data-urlencode", action="append", default=[])
    found.add_argument("-o", "--output")
    found.add_argument("-w", "--write-out")
    found.add_argument("--cacert")
    found.add_argument("--max-time", type=float, default=60.0)
    found.add_argument("url")
    return found


def main() -> int:
    """Do what curl would; its exit code."""
    given = parser().parse_args()
    url = given.url if "://" in given.url else f"http://{given.url}"
    if given.get and given.data_urlencode:
        url += "?" + urlencode([tuple(pair.split("=", 1)) for pair in given.data_urlencode])
    body = None
    headers = {}
    if given.data is not None:
        text = given.data
        body = Path(text[1:]).read_bytes() if text.startswith("@") and text != "@-" else text.encode()
        if text == "@-":
            body = sys.stdin.buffer.read()
        headers["Content-Type"] = "application/json" if "--json" in sys.argv else "application/x-www-form-urlencoded"
    for line in given.header:
        name, _, value = line.partition(":")
        headers = {known: what for known, what in headers.items() if known.lower() != name.lower()}
        headers[name] = value.strip()
    method = given.request or ("POST" if body is not None else "GET")
    trust = ssl.create_default_context(cafile=given.cacert) if url.startswith("https://") else None
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        answer = urllib.request.urlopen(request, timeout=given.max_time, context=trust)
    except urllib.error.HTTPError as refusal:
        if given.fail:
            sys.stderr.write(f"curl: (22) The requested URL returned error: {refusal.code}\n")
            return 22
        answer = refusal
    except urllib.error.URLError as error:
        sys.stderr.write(f"curl: (7) {error.reason}\n")
        return 7
    with answer:
        content = answer.read()
        if given.include:
            head = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{n.lower()}: {v}" for n, v in answer.getheaders())]
            content = "\r\n".join([*head, "", ""]).encode() + content
        if given.output:
            Path(given.output).write_bytes(content)
        else:
            sys.stdout.buffer.write(content)
        if given.write_out:
            text = given.write_out.replace("%{http_code}", str(answer.status)).replace("\\n", "\n")
            sys.stdout.buffer.write(text.encode())
        return 22 if given.fail_with_body and answer.status >= 400 else 0


if __name__ == "__main__":
    sys.exit(main())
