#!/bin/bash
# Whether this container's role is ready: asks /readyz of its own HTTP port. The image has no HTTP client; bash has sockets.
set -euo pipefail
port="${CALLBOARD_HTTP_LISTEN##*:}"
exec 3<>"/dev/tcp/127.0.0.1/${port:-7071}"
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 2 _version status _reason <&3
[ "$status" = 200 ]
