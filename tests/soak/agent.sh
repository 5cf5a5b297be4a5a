#!/bin/sh
# An agent in POSIX shell. usage: agent.sh FOLDER ID
folder=$1 id=$2 last=
mkdir -p "$folder/messages" "$folder/responses" "$folder/status"
printf '{"agentId": "%s", "status": "ready", "pid": %d}' "$id" $$ > "$folder/status/.$id.tmp"
mv "$folder/status/.$id.tmp" "$folder/status/agent-$id-status.json"
while sleep 0.01; do
    message=$(cat "$folder/messages/coordination-$id.json" 2>/dev/null) || continue
    message_id=$(printf %s "$message" | sed -n 's/.*"messageId": *"\([^"]*\)".*/\1/p')
    [ -n "$message_id" ] && [ "$message_id" != "$last" ] || continue
    last=$message_id
    printf '{"agentId": "%s", "messageId": "%s", "response": {"pong": true}}' "$id" "$last" > "$folder/responses/.$id.tmp"
    mv "$folder/responses/.$id.tmp" "$folder/responses/response-$id-$last.json"
done
